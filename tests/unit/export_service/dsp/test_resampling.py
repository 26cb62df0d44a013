"""Conversion of sample rate and channel count: frame count, accuracy, and independence of block sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from export_service.dsp.resampling import Resampler, resampled_frame_count
from tests.support import signals


def resample(samples, in_hz, out_hz, channels, block_frames=65_536):
    resampler = Resampler(in_hz, samples.shape[1], out_hz, channels)
    pieces = [resampler.feed(samples[start : start + block_frames]) for start in range(0, len(samples), block_frames)]
    return np.concatenate([*pieces, resampler.finish()])


@pytest.mark.parametrize(
    ("in_hz", "out_hz"),
    [(44_100, 32_000), (48_000, 44_100), (44_100, 22_050), (192_000, 8_000), (8_000, 192_000), (32_000, 32_000)],
)
def test_resampler_returns_the_exact_frame_count(in_hz, out_hz):
    # 240 frames of 48 kHz are 220.5 of 44.1 kHz: soxr alone gives 220.
    for frames in (1, 2, 7, 12, 240, 441, 44_101, 100_003):
        result = resample(np.zeros((frames, 1), np.float32), in_hz, out_hz, 1)
        assert len(result) == resampled_frame_count(frames, in_hz, out_hz) == math.floor(frames * out_hz / in_hz + 0.5)


@pytest.mark.parametrize(("in_hz", "out_hz"), [(44_100, 32_000), (32_000, 48_000), (192_000, 44_100)])
@pytest.mark.parametrize("hz", [50.0, 997.0, 10_000.0])
def test_resampled_tone_keeps_pitch_level_and_phase(in_hz, out_hz, hz):
    def tone(rate):
        return 0.5 * np.sin(2 * np.pi * hz * np.arange(2 * rate) / rate)[:, None]

    result = resample(tone(in_hz).astype(np.float32), in_hz, out_hz, 1)
    edge = out_hz // 20
    error = (result - tone(out_hz))[edge:-edge]
    assert 20 * np.log10(np.sqrt(np.mean(error**2)) / (0.5 / np.sqrt(2))) <= -80


def test_resampling_removes_frequencies_above_the_new_band():
    tone = np.sin(2 * np.pi * 17_500 * np.arange(44_100) / 44_100)[:, None].astype(np.float32)
    assert np.abs(resample(tone, 44_100, 32_000, 1)[1_600:-1_600]).max() <= 10 ** (-80 / 20)


@pytest.mark.parametrize("block_frames", [1_000, 12_345])
def test_resampling_does_not_depend_on_block_size(block_frames):
    samples = signals.music(44_100, 2)
    np.testing.assert_array_equal(
        resample(samples, 44_100, 32_000, 2, block_frames), resample(samples, 44_100, 32_000, 2, len(samples))
    )


@pytest.mark.parametrize("out_hz", [44_100, 32_000])
def test_channel_mixing_down_and_up(out_hz):
    samples = signals.music(44_100, 1)
    mono = resample(samples, 44_100, out_hz, 1)
    mean = (samples[:, :1] + samples[:, 1:]) / 2
    np.testing.assert_array_equal(mono, resample(mean, 44_100, out_hz, 1))
    np.testing.assert_array_equal(resample(mean, 44_100, out_hz, 2), np.repeat(mono, 2, axis=1))
