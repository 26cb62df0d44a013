"""Which tempo of a generation's metadata is believed."""

from __future__ import annotations

import pytest

from dgx_music.storage.v1 import storage_pb2 as storage
from gateway.rpc.known_tempo import read_tempo


@pytest.mark.parametrize(
    ("metadata", "bpm"),
    [
        ({"bpm": 90.0, "measured_bpm": 180.0}, 90.0),
        ({"measured_bpm": 124.03}, 124.03),
        ({"bpm": 900.0, "measured_bpm": 120.0}, 120.0),
        ({"bpm": "fast"}, 0.0),
        ({"bpm": 20.0}, 0.0),
        ({}, 0.0),
    ],
)
def test_tempo_of_the_model_comes_before_the_measured_one(metadata, bpm):
    generation = storage.Generation()
    generation.metadata.update(metadata)
    assert read_tempo(generation) == bpm
