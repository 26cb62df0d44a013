"""Loudness curves of files: as players decode them, block by block, and errors that say what is wrong."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dgx_music.errors import NotFound, Unavailable
from export_service.pipeline.curve_measurement import measure_curve
from tests.support import signals


def write(path: Path, seconds: float, rate: int, subtype: str = "PCM_24", kind: str = "WAV") -> Path:
    soundfile.write(path, signals.music(rate, seconds), rate, subtype=subtype, format=kind)
    return path


def test_curve_does_not_depend_on_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.wav", 3.21, 44_100)
    whole = measure_curve(path, 10_000)
    monkeypatch.setattr("export_service.pipeline.curve_measurement.BLOCK_FRAMES", 1001)
    pieces = measure_curve(path, 10_000)
    assert len(whole.true_peak) == 33
    np.testing.assert_array_equal(whole.true_peak, pieces.true_peak)
    np.testing.assert_array_equal(whole.short_term_lufs, pieces.short_term_lufs)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    short, long = write(tmp_path / "a.wav", 2.0, 48_000), write(tmp_path / "b.wav", 12.0, 48_000)
    measure_curve(short, 10_000)
    peaks = []
    for path in (short, long):
        tracemalloc.start()
        measure_curve(path, 10_000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 500_000, "10 s more have 3.8 MB of samples"


def test_opus_is_measured_at_the_rate_at_which_it_is_played(tmp_path: Path) -> None:
    path = write(tmp_path / "a.opus", 2.0, 16_000, "OPUS", "OGG")
    decoded, rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert rate == 16_000  # As libsndfile decodes it unless told otherwise.
    assert len(decoded) == 32_000
    assert len(measure_curve(path, 10_000).true_peak) == 20


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"not audio")
    with pytest.raises(Unavailable, match="damaged"):
        measure_curve(path, 10)
    path.unlink()
    with pytest.raises(NotFound):
        measure_curve(path, 10)
