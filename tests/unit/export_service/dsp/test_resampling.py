"""Other sample rates and channel counts: as many frames as promised, the same sound, however it is cut."""

from __future__ import annotations

import math

import numpy as np
import pytest

from export_service.dsp.resampling import Converter, converted_frames
from tests.support import signals


def convert(samples, in_hz, out_hz, channels, at_once=65_536):
    converter = Converter(in_hz, samples.shape[1], out_hz, channels)
    pieces = [converter.feed(samples[start : start + at_once]) for start in range(0, len(samples), at_once)]
    return np.concatenate([*pieces, converter.finish()])


@pytest.mark.parametrize(
    ("in_hz", "out_hz"),
    [(44_100, 32_000), (48_000, 44_100), (44_100, 22_050), (192_000, 8_000), (8_000, 192_000), (32_000, 32_000)],
)
def test_exactly_as_many_frames_as_promised(in_hz, out_hz):
    # 240 frames of 48 kHz are 220.5 of 44.1 kHz: soxr alone gives 220.
    for frames in (1, 2, 7, 12, 240, 441, 44_101, 100_003):
        result = convert(np.zeros((frames, 1), np.float32), in_hz, out_hz, 1)
        assert len(result) == converted_frames(frames, in_hz, out_hz) == math.floor(frames * out_hz / in_hz + 0.5)


@pytest.mark.parametrize(("in_hz", "out_hz"), [(44_100, 32_000), (32_000, 48_000), (192_000, 44_100)])
@pytest.mark.parametrize("hz", [50.0, 997.0, 10_000.0])
def test_a_tone_keeps_its_pitch_level_and_place(in_hz, out_hz, hz):
    def tone(rate):
        return 0.5 * np.sin(2 * np.pi * hz * np.arange(2 * rate) / rate)[:, None]

    result = convert(tone(in_hz).astype(np.float32), in_hz, out_hz, 1)
    edge = out_hz // 20
    error = (result - tone(out_hz))[edge:-edge]
    assert 20 * np.log10(np.sqrt(np.mean(error**2)) / (0.5 / np.sqrt(2))) <= -80


def test_what_the_new_rate_can_not_hold_is_gone():
    tone = np.sin(2 * np.pi * 17_500 * np.arange(44_100) / 44_100)[:, None].astype(np.float32)
    assert np.abs(convert(tone, 44_100, 32_000, 1)[1_600:-1_600]).max() <= 10 ** (-80 / 20)


@pytest.mark.parametrize("at_once", [1_000, 12_345])
def test_however_it_is_cut(at_once):
    samples = signals.music(44_100, 2)
    np.testing.assert_array_equal(
        convert(samples, 44_100, 32_000, 2, at_once), convert(samples, 44_100, 32_000, 2, len(samples))
    )


@pytest.mark.parametrize("out_hz", [44_100, 32_000])
def test_one_channel_of_two_and_two_of_one(out_hz):
    samples = signals.music(44_100, 1)
    mono = convert(samples, 44_100, out_hz, 1)
    mean = (samples[:, :1] + samples[:, 1:]) / 2
    np.testing.assert_array_equal(mono, convert(mean, 44_100, out_hz, 1))
    np.testing.assert_array_equal(convert(mean, 44_100, out_hz, 2), np.repeat(mono, 2, axis=1))
