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
