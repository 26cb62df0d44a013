"""What Prometheus sees of a finished file."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from export_service.pipeline import export_metrics
from export_service.pipeline.export_metrics import count_file, phase
from service_runtime.audio.output_options import FileFormat
from tests.support.shown_metrics import shown


def test_file_is_counted_with_its_size_and_its_gain() -> None:
    file: Any = SimpleNamespace(
        format=FileFormat.MP3,
        file_size_bytes=1234,
        frames=24000,
        sample_rate_hz=48000,
        normalization=SimpleNamespace(gain_db=-2.5, largest_reduction_db=1.25),
    )
    with (
        shown(export_metrics.FILES) as files,
        shown(export_metrics.FILE_BYTES) as size,
        shown(export_metrics.AUDIO_SECONDS) as seconds,
        shown(export_metrics.GAIN) as gain,
        shown(export_metrics.REDUCTION) as reduction,
    ):
        count_file(file)
    assert files == {("mp3",): [1.0]}
    assert (size, seconds) == ({(): [1234]}, {(): [0.5]})
    assert (gain, reduction) == ({(): [-2.5]}, {(): [1.25]})


def test_phase_that_fails_is_timed_too() -> None:
    with shown(export_metrics.PHASE_SECONDS) as phases, pytest.raises(OSError, match="full"), phase("write"):
        raise OSError("full")
    assert list(phases) == [("write",)]
