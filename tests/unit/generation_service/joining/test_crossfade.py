"""Crossfades of constant power."""

from __future__ import annotations

import numpy as np
import pytest

from generation_service.joining.crossfade import MAX_GAIN, correlation, crossfade, match_level
from tests.support.joints import music, rms_db

RATE = 32_000


def noise(seed: int, frames: int = 3200):
    return np.random.default_rng(seed).normal(0, 0.2, (frames, 2)).astype(np.float32)


def test_signal_faded_into_itself_stays_the_same():
    samples = music(0.1, RATE)
    assert np.abs(crossfade(samples, samples) - samples).max() < 1e-6


def test_unrelated_signals_keep_their_power_in_every_part_of_the_joint():
    joint = crossfade(noise(1), noise(2))
    levels = [rms_db(part) for part in np.split(joint, 8)]
    assert max(levels) - min(levels) < 1.0
    assert abs(np.mean(levels) - rms_db(noise(1))) < 0.5


def test_it_starts_with_the_first_and_ends_with_the_second():
    first, second = noise(1), noise(2)
    joint = crossfade(first, second)
    assert np.allclose(joint[0], first[0], atol=1e-6)
    assert np.abs(joint[-1] - second[-1]).max() < 1e-3


def test_frame_after_the_last_would_be_the_second_signals():
    first, second = np.ones((4, 1), np.float32), np.zeros((4, 1), np.float32)
    assert crossfade(first, second)[:, 0] == pytest.approx(np.cos(np.pi / 8 * np.arange(4)), abs=1e-6)


def test_opposite_signals_and_silence_are_no_reason_for_infinite_gain():
    samples = noise(1)
    assert correlation(samples, -samples) == 0.0
    assert correlation(samples, np.zeros_like(samples)) == 0.0
    assert np.abs(crossfade(samples, -samples)).max() <= 2 * np.abs(samples).max()
    assert crossfade(samples[:0], samples[:0]).shape == (0, 2)


@pytest.mark.parametrize(("factor", "gain"), [(1.0, 1.0), (0.8, 1.25), (0.1, MAX_GAIN), (100.0, 1 / MAX_GAIN)])
def test_level_is_matched_within_limits(factor, gain):
    reference = noise(1)
    assert match_level(reference * np.float32(factor), reference) == pytest.approx(gain, rel=1e-5)


def test_silence_is_not_amplified():
    assert match_level(np.zeros((10, 2), np.float32), noise(1)) == 1.0
    assert match_level(noise(1), np.zeros((10, 2), np.float32)) == 1.0
