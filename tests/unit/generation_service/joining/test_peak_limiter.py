"""New music stays below the ceiling, and music below it passes unchanged."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import resample_poly

from generation_service.joining.peak_limiter import CEILING, PeakLimiter
from generation_service.models.base import FloatArray
from tests.support.joints import click, music

RATE = 32_000
LOUD = 3.0 * music(2.0, RATE)


def limit(samples: FloatArray, block: int = 640) -> FloatArray:
    limiter = PeakLimiter(samples.shape[1], RATE)
    parts = [limiter.feed(samples[at : at + block]) for at in range(0, len(samples), block)]
    return np.concatenate([*parts, limiter.finish()])


def true_peak(samples: FloatArray) -> float:
    return float(np.abs(resample_poly(samples, 8, 1)).max())


def test_music_below_the_ceiling_passes_to_the_bit() -> None:
    samples = music(2.0, RATE)
    samples *= np.float32(0.98 * CEILING / true_peak(samples))
    assert np.array_equal(limit(samples), samples)


def test_no_true_peak_exceeds_the_ceiling_except_next_to_what_is_joined() -> None:
    limited = limit(LOUD)
    assert limited.shape == LOUD.shape
    assert true_peak(LOUD) > 1.5
    assert true_peak(limited[RATE // 20 : -RATE // 20]) < 1.01 * CEILING
    assert np.array_equal(limited[:1], LOUD[:1])
    assert np.array_equal(limited[-1:], LOUD[-1:])


def test_only_what_is_near_a_peak_is_turned_down() -> None:
    samples = 0.5 * music(2.0, RATE, bpm=20)
    samples[RATE : RATE + 20] += np.hanning(20)[:, np.newaxis].astype(np.float32) * 1.2
    limited = limit(samples)
    changed = np.flatnonzero((limited != samples).any(axis=1))
    assert changed.min() > RATE - 0.01 * RATE
    assert changed.max() < RATE + 0.01 * RATE
    assert true_peak(limited) < 1.01 * CEILING
    for edge in (changed.min(), changed.max()):
        assert click(limited, int(edge), RATE) < 1.5


@pytest.mark.parametrize("block", [1, 97, 10_000, 10**6])
def test_result_does_not_depend_on_the_blocks(block: int) -> None:
    samples = LOUD[:2000] if block == 1 else LOUD
    np.testing.assert_allclose(limit(samples, block), limit(samples), atol=1e-6)


@pytest.mark.parametrize("frames", [0, 1, 50, 300])
def test_very_short_music_keeps_its_length(frames: int) -> None:
    assert limit(LOUD[:frames]).shape == (frames, 2)
