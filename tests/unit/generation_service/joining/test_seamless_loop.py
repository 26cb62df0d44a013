"""Loops without a seam: measured where the end meets the start."""

from __future__ import annotations

import numpy as np
import pytest

from generation_service.joining.seamless_loop import SeamlessLoop
from generation_service.models.base import FloatArray
from tests.support.joints import click, level_jump_db, music, spectral_jump_db

RATE = 32_000
BPM = 110
BAR = round(4 * 60 / BPM * RATE)
LOOP = round(2 * 4 * 60 / BPM * RATE)

MAX_CLICK, MAX_LEVEL_JUMP_DB, MAX_SPECTRAL_JUMP_DB = 1.5, 1.0, 3.0
"""How much more the loop may change at its seam than the music itself does at a bar line."""


def cut(samples: FloatArray, block: int = 1280, loop: int = LOOP) -> FloatArray:
    seamless = SeamlessLoop(BAR, loop, RATE)
    parts = []
    for at in range(0, len(samples), block):
        parts.append(seamless.feed(samples[at : at + block]))
        if seamless.is_complete:
            break
    assert seamless.is_complete
    return np.concatenate(parts)


def fading_music() -> FloatArray:
    """Music that gets louder and brighter, so that its end does not fit its start."""
    samples = music(8.0, RATE, BPM, seed=2)
    ramp = np.linspace(0.4, 1.0, len(samples), dtype=np.float32)[:, np.newaxis]
    return samples * ramp + np.random.default_rng(3).normal(0, 0.02, samples.shape).astype(np.float32) * ramp


def test_loop_has_exactly_the_length_of_its_bars_and_starts_at_a_zero_crossing():
    samples = music(8.0, RATE, BPM)
    loop = cut(samples)
    assert loop.shape == (LOOP, 2)
    twice = np.concatenate([loop, loop]).mean(axis=1)
    assert (twice[LOOP - 1] < 0) != (twice[LOOP] < 0)
    start = np.flatnonzero(samples[: 2 * BAR, 0] == loop[0, 0])[0]
    assert BAR <= start <= BAR + 0.01 * RATE


@pytest.mark.parametrize("make", [fading_music, lambda: music(8.0, RATE, BPM, seed=4)])
def test_seam_does_not_click_and_hardly_changes_level_or_spectrum(make):
    samples = make()
    loop = cut(samples)
    around = np.concatenate([loop, loop])
    line = int(np.flatnonzero(samples[: 2 * BAR, 0] == loop[0, 0])[0])  # The bar line in the music itself.
    assert click(around, LOOP, RATE) <= MAX_CLICK * max(1.0, click(samples, line, RATE))
    assert level_jump_db(around, LOOP, RATE) <= level_jump_db(samples, line, RATE) + MAX_LEVEL_JUMP_DB
    assert spectral_jump_db(around, LOOP, RATE) <= spectral_jump_db(samples, line, RATE) + MAX_SPECTRAL_JUMP_DB


def test_plain_cut_of_the_same_music_clicks():
    samples = music(8.0, RATE, BPM)[RATE // 5 :]  # The loop starts between two drums.
    samples += np.linspace(-0.5, 0.5, len(samples), dtype=np.float32)[:, np.newaxis]
    plain = samples[BAR : BAR + LOOP]
    assert click(np.concatenate([plain, plain]), LOOP, RATE) > 2 * MAX_CLICK
    loop = cut(samples)
    assert click(np.concatenate([loop, loop]), LOOP, RATE) <= MAX_CLICK


@pytest.mark.parametrize("block", [333, BAR, 10**6])
def test_loop_does_not_depend_on_the_blocks(block):
    samples = music(8.0, RATE, BPM)
    assert np.array_equal(cut(samples, block), cut(samples))


@pytest.mark.parametrize(("bar", "loop"), [(100, 10), (100, 8000)])
def test_needed_frames_suffice_and_more_are_ignored(bar, loop):
    seamless = SeamlessLoop(bar, loop, RATE)
    samples = music(1.0, RATE)
    needed = seamless.needed_frames
    assert len(seamless.feed(samples[:needed])) == loop
    assert seamless.is_complete
    assert len(seamless.feed(samples[needed:])) == 0


def test_loop_starts_where_a_signal_that_never_crosses_zero_is_closest_to_it():
    samples = np.full((8 * RATE, 1), 0.5, np.float32)
    samples[BAR + 123] = 0.25
    assert cut(samples)[0] == 0.25


def test_silence_can_be_looped():
    assert not cut(np.zeros((8 * RATE, 2), np.float32)).any()
