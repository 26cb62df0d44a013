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


def test_silence_and_short_music_have_no_best_place():
    silence = np.zeros((RATE, 2), np.float32)
    assert find_offset(silence, silence[:100], RATE) == 0
    assert find_offset(silence[:10], silence[:10], RATE) == 0
