"""Finding where two pieces of music fit together."""

from __future__ import annotations

import numpy as np
import pytest

from generation_service.joining.alignment import find_offset
from tests.support.joints import music

RATE = 32_000


@pytest.mark.parametrize("offset", [0, 1, 159, 4321, 15_999, 32_000])
def test_part_of_the_same_music_is_found_to_the_frame(offset):
    whole = music(3.0, RATE, bpm=20)
    random = np.random.default_rng(1)
    for at in random.integers(0, len(whole) - 4000, 12):  # A rhythm that does not repeat.
        whole[at : at + 4000] += random.uniform(0.2, 0.6) * np.linspace(1, 0, 4000)[:, np.newaxis] ** 4
    part = whole[offset : offset + RATE]
    assert find_offset(whole[: 2 * RATE], part, RATE) == offset


def test_beats_of_other_music_meet():
    beat = round(60 / 120 * RATE)
    other = music(3.0, RATE, bpm=120, seed=5)[round(0.13 * RATE) :]
    offset = find_offset(other[: 2 * RATE], music(1.0, RATE, bpm=120), RATE)
    off_beat = (offset + round(0.13 * RATE)) % beat
    assert min(off_beat, beat - off_beat) < 0.012 * RATE


def test_loudest_place_is_not_the_best_one():
    t = np.arange(2 * RATE) / RATE
    random = np.random.default_rng(3)
    hit = 0.5 * random.normal(size=len(t)) * np.where(t >= 1.2, np.exp((1.2 - t) * 60), 0.0)
    tone = 0.5 * np.sin(2 * np.pi * 125 * t) + 0.02 * random.normal(size=len(t))
    whole = ((tone + hit) * np.exp(5 * (t - 1)))[:, np.newaxis].astype(np.float32)  # Each period is like the last one.
    assert find_offset(whole, whole[16_000 : 16_000 + RATE], RATE) == 16_000


def test_end_of_a_tone_is_no_beat():
    frames = np.arange(2 * RATE)
    noise = np.random.default_rng(4).normal(size=(2 * RATE, 1)).astype(np.float32)
    swell = np.where(frames < 0.6 * RATE, frames / (0.6 * RATE), 0.0)
    music = noise * (swell + 0.5 * (frames >= 1.1 * RATE))[:, np.newaxis].astype(np.float32)
    beat = noise[:RATE] * (frames[:RATE] >= 0.2 * RATE)[:, np.newaxis]
    assert find_offset(music, beat, RATE) == pytest.approx(0.9 * RATE, abs=0.02 * RATE)


def test_silence_and_short_music_have_no_best_place():
    silence = np.zeros((RATE, 2), np.float32)
    assert find_offset(silence, silence[:100], RATE) == 0
    assert find_offset(silence[:10], silence[:10], RATE) == 0
