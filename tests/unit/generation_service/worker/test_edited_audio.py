"""The conversion of what the model generates to the format of an edit's source."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from generation_service.models.base import FloatArray
from generation_service.worker.edited_audio import FormatConverter
from tests.support.tone_model import ToneModel

INFO = ToneModel().info


def sine(rate: int, seconds: float = 1.0, hz: float = 440.0) -> FloatArray:
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate).astype(np.float32)


def convert(samples: FloatArray, rate: int, channels: int, frames: int) -> FloatArray:
    converter = FormatConverter(replace(INFO, channels=samples.shape[1]), rate, channels, frames)
    blocks = [converter.feed(samples[at : at + 800]) for at in range(0, len(samples), 800)]
    return np.concatenate([*blocks, converter.finish()])


@pytest.mark.parametrize("rate", [8000, 44_100, 48_000])
def test_it_has_the_rate_of_the_source_up_to_its_last_frame(rate: int) -> None:
    converted = convert(sine(INFO.sample_rate_hz)[:, None], rate, 1, rate)
    assert converted.shape == (rate, 1)
    middle, end = slice(rate // 4, rate // 2), slice(-rate // 1000, None)
    assert np.abs(converted[middle, 0] - sine(rate)[middle]).max() < 1e-3
    assert np.abs(converted[end, 0] - sine(rate)[end]).max() < 0.3, "the resampler's last frames are there"


def test_what_the_model_did_not_generate_is_silent_and_what_is_too_much_is_cut() -> None:
    tone = sine(8000)[:, None]
    longer = convert(tone, 8000, 1, 9000)
    assert np.array_equal(longer[:8000], tone)
    assert len(longer) == 9000
    assert not longer[8000:].any()
    assert np.array_equal(convert(tone, 8000, 1, 7000), tone[:7000])


def test_channels_are_mixed_or_repeated() -> None:
    tone, noise = sine(8000), np.random.default_rng(1).normal(0, 0.1, 8000).astype(np.float32)
    mono = convert(np.stack([tone, noise], axis=1), 8000, 1, 8000)
    assert np.allclose(mono[:, 0], (tone + noise) / 2, atol=1e-6)
    stereo = convert(tone[:, None], 8000, 2, 8000)
    assert np.array_equal(stereo, np.stack([tone, tone], axis=1))
