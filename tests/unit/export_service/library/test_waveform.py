"""Waveform overviews, compared with NumPy on all samples at once."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from dgx_music.errors import NotFound, Unavailable
from export_service.library.waveform import compute_waveform
from tests.support import signals


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("points", [1, 7, 800, 10_000])
@pytest.mark.parametrize("subtype", ["PCM_24", "FLOAT"])
def test_waveform_of_points_across_block_boundaries(tmp_path, channels, points, subtype, monkeypatch):
    monkeypatch.setattr("export_service.library.waveform.BLOCK_FRAMES", 1000)
    path = tmp_path / "noise.wav"
    soundfile.write(path, signals.noise(32_000, 0.7003, channels), 32_000, subtype=subtype)
    mono = soundfile.read(path, dtype="float32", always_2d=True)[0].mean(axis=1)
    waveform = compute_waveform(path, points)
    assert waveform.sample_rate_hz == 32_000
    starts = np.arange(0, len(mono), waveform.samples_per_pixel)
    expected = np.stack([np.minimum.reduceat(mono, starts), np.maximum.reduceat(mono, starts)], axis=1).ravel()
    assert len(starts) <= points
    # Half a step of rounding to 8 bits, and the rounding of float32.
    np.testing.assert_allclose(waveform.data, expected * 128, atol=0.501)


@pytest.mark.parametrize(("points", "length"), [(1, 1), (3, 3), (999, 500), (1000, 1000), (10_000, 1000)])
def test_waveform_has_at_most_requested_points(tmp_path, points, length, monkeypatch):
    monkeypatch.setattr("export_service.library.waveform.BLOCK_FRAMES", 64)
    path = tmp_path / "ramp.wav"
    soundfile.write(path, np.linspace(-1, 1, 1000), 32_000, subtype="PCM_24")
    waveform = compute_waveform(path, points)
    assert waveform.samples_per_pixel == -(-1000 // points)
    assert len(waveform.data) == 2 * length


def test_waveform_clips_samples_over_full_scale(tmp_path):
    path = tmp_path / "loud.wav"
    soundfile.write(path, np.array([[1.5], [-1.5]] * 50), 32_000, subtype="FLOAT")
    assert compute_waveform(path, 1).data == [-128, 127]


def test_waveform_of_damaged_and_missing_file(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"not audio")
    with pytest.raises(Unavailable, match="damaged"):
        compute_waveform(path, 10)
    path.unlink()
    with pytest.raises(NotFound):
        compute_waveform(path, 10)
