"""A generation's message as Python values and as a short text."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dgx_music.client.generation_fields import STATES, GenerationFields
from dgx_music.errors import GenerationCancelled, GenerationFailed
from dgx_music.storage.v1 import storage_pb2 as pb

ID = "3f0e4a52-6f5e-4e40-9a58-1f6d0a5b7c11"


class Fields(GenerationFields):
    def __init__(self, **fields: object) -> None:
        self._message = pb.Generation(id=ID, **fields)  # type: ignore[arg-type]

    @property
    def message(self) -> pb.Generation:
        return self._message


def test_figures_are_none_until_they_are_known() -> None:
    new = Fields(prompt="a" * 100, state=pb.GENERATION_STATE_PENDING, duration_seconds=16, sample_rate_hz=32_000)
    assert [new.loudness, new.true_peak, new.tempo, new.key, new.file_path, new.error, new.rating, new.client] == (
        [None] * 8
    )
    assert (new.sample_rate, new.stage, new.is_finished, new.metadata) == (32_000, None, False, {})
    assert repr(new) == f"<Fields '{'a' * 39}…': pending, 16 s, id {ID}>"


def test_figures_of_the_file_precede_those_that_were_asked_for() -> None:
    done = Fields(
        prompt="house",
        state=pb.GENERATION_STATE_COMPLETED,
        duration_seconds=1.5,
        sample_rate_hz=32_000,
        channels=2,
        output={"sample_rate_hz": 44_100, "channels": 1},
        created_at={"seconds": 1_800_000_000},
    )
    assert (done.sample_rate, done.channels) == (44_100, 1)
    done.message.metadata.update(
        {
            "file_sample_rate_hz": 48_000,
            "file_channels": 2,
            "integrated_lufs": -16.04,
            "true_peak_dbtp": -1.2,
            "measured_bpm": 62.5,
            "measured_key": "A minor",
        }
    )
    assert (done.sample_rate, done.channels) == (48_000, 2)
    assert (done.tempo, done.key) == (62.5, "A minor")
    assert done.created_at == datetime(2027, 1, 15, 8, tzinfo=UTC)
    assert repr(done) == f"<Fields 'house': completed, 1.5 s, -16.0 LUFS, -1.2 dBTP, 62.5 BPM, A minor, id {ID}>"
    done.message.metadata.update({"bpm": 125, "key": "C major"})
    assert (done.tempo, done.key) == (125.0, "C major")


def test_progress_and_error_are_told() -> None:
    running = Fields(state=pb.GENERATION_STATE_PROCESSING, stage=pb.GENERATION_STAGE_LOADING_MODEL, progress=0.255)
    assert (running.state, running.stage) == ("processing", "loading_model")
    assert "processing 26%" in repr(running)
    assert "out of memory" in repr(Fields(state=pb.GENERATION_STATE_FAILED, error_message="out of memory"))


@pytest.mark.parametrize("state", STATES)
def test_only_failure_and_cancellation_are_raised(state: str) -> None:
    generation = Fields(state=STATES[state], error_message="out of memory")
    match state:
        case "failed":
            with pytest.raises(GenerationFailed, match="out of memory") as failed:
                generation.raise_if_unsuccessful()
            assert failed.value.metadata == {"id": ID, "error_message": "out of memory"}
        case "cancelled":
            with pytest.raises(GenerationCancelled):
                generation.raise_if_unsuccessful()
        case _:
            generation.raise_if_unsuccessful()
