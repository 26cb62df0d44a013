"""The outline, held to NumPy on the whole of the samples."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from export_service.library.waveform import waveform


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("points", [1, 7, 800, 10_000])
@pytest.mark.parametrize("subtype", ["PCM_24", "FLOAT"])
def test_points_that_lie_across_what_is_read_at_once(tmp_path, signals, channels, points, subtype, monkeypatch):
    monkeypatch.setattr("export_service.library.waveform.BLOCK_FRAMES", 1000)
    path = tmp_path / "noise.wav"
    soundfile.write(path, signals.noise(32_000, 0.7003, channels), 32_000, subtype=subtype)
    mono = soundfile.read(path, dtype="float32", always_2d=True)[0].mean(axis=1)
    outline = waveform(path, points)
    starts = np.arange(0, len(mono), outline.samples_per_pixel)
    expected = np.stack([np.minimum.reduceat(mono, starts), np.maximum.reduceat(mono, starts)], axis=1).ravel()
    assert len(starts) <= points
    # Within half a step, and what float32 rounds.
    np.testing.assert_allclose(outline.data, expected * 128, atol=0.501)


def test_what_is_over_full_scale_stays_in_8_bits(tmp_path):
    path = tmp_path / "loud.wav"
    soundfile.write(path, np.array([[1.5], [-1.5]] * 50), 32_000, subtype="FLOAT")
    assert waveform(path, 1).data == [-128, 127]


@pytest.fixture
def ramp(tmp_path):
    """1000 frames that rise from -1 to 1 on the left and are silent on the right."""
    path = tmp_path / "ramp.wav"
    samples = np.stack([np.linspace(-1, 1, 1000), np.zeros(1000)], axis=1)
    soundfile.write(path, samples, 32_000, subtype="PCM_24")
    return path, samples


@pytest.mark.parametrize(("points", "length"), [(1, 1), (3, 3), (999, 500), (1000, 1000), (10_000, 1000)])
def test_outline_has_at_most_the_points_asked_for(ramp, points, length, monkeypatch):
    monkeypatch.setattr("export_service.library.waveform.BLOCK_FRAMES", 64)
    outline = waveform(ramp[0], points)
    assert len(outline.data) == 2 * length
    assert min(outline.data) >= -128
    assert max(outline.data) <= 127
