"""The tempo that a prompt names."""

from __future__ import annotations

import pytest

from service_runtime.prompt_tempo import parse_tempo


@pytest.mark.parametrize(
    ("prompt", "bpm"),
    [
        ("lo-fi at 84 BPM in A minor", 84.0),
        ("techno, 128.5bpm", 128.5),
        ("tempo: 90, calm", 90.0),
        ("300 beats per minute", 300.0),
        ("an 80s ballad with 808s", None),
        ("tempo 1200", None),
        ("120 bpmx", None),
        ("BPM of 72", 72.0),
        ("", None),
    ],
)
def test_tempo_is_read_as_written(prompt: str, bpm: float | None) -> None:
    assert parse_tempo(prompt) == bpm
