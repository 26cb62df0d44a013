"""Beats that were tracked on the beat, on the offbeat, and on the short notes of swing."""

from __future__ import annotations

import numpy as np
import pytest

from export_service.analysis.beat_features import BeatFeatures
from export_service.analysis.beat_phase import find_phase, shifted

RATE_HZ, CHROMA_RATE_HZ, SECONDS, PERIOD = 160.0, 20.0, 24.0, 0.6
BEATS = np.arange(0.3, SECONDS - 0.3, PERIOD)


def features(between: float, strength: float, bass_between: float = 0.0) -> BeatFeatures:
    """Onsets of 1 on BEATS, and of `strength` at a share of the way to the next; a new chord on every fourth beat."""
    onsets, bass = np.zeros(round(SECONDS * RATE_HZ)), np.zeros(round(SECONDS * RATE_HZ))
    on, off = (np.round(times * RATE_HZ).astype(int) for times in (BEATS, BEATS[:-1] + between * PERIOD))
    onsets[on], onsets[off], bass[on], bass[off] = 1.0, strength, 1.0, bass_between
    bars = np.floor((np.arange(round(SECONDS * CHROMA_RATE_HZ)) / CHROMA_RATE_HZ - BEATS[0]) / (4 * PERIOD))
    chroma = np.eye(12)[(5 * bars.astype(int)) % 12]
    return BeatFeatures(
        RATE_HZ, onsets.astype(np.float32), bass.astype(np.float32), 0.0, CHROMA_RATE_HZ, chroma.astype(np.float32),
        SECONDS,
    )  # fmt: skip


@pytest.mark.parametrize(("between", "strength"), [(0.5, 0.0), (0.5, 0.7), (2 / 3, 0.9), (0.5, 1.1)])
def test_beats_on_the_beat_stay(between: float, strength: float) -> None:
    phase = find_phase(features(between, strength), BEATS, 4)
    assert phase.shift == 0.0
    assert phase.confidence > 0.5


@pytest.mark.parametrize(("between", "strength"), [(0.5, 1.3), (0.5, 1.0), (2 / 3, 1.3)])
def test_beats_on_a_strong_offbeat_are_moved(between: float, strength: float) -> None:
    found = features(between, strength)
    tracked = BEATS[:-1] + between * PERIOD
    phase = find_phase(found, tracked, 4)
    assert phase.shift == pytest.approx(1.0 - between, abs=0.01)
    assert phase.confidence > 0.5
    np.testing.assert_allclose(shifted(tracked, phase.shift, SECONDS)[1:20], BEATS[1:20], atol=0.01)


def test_offbeats_that_bass_and_chords_do_not_tell_apart_are_not_sure() -> None:
    same = features(0.5, 1.1, bass_between=1.1)
    flat = BeatFeatures(RATE_HZ, same.onsets, same.bass, 0.0, CHROMA_RATE_HZ, np.ones_like(same.chroma), SECONDS)
    assert find_phase(flat, BEATS, 4).confidence < 0.5


def test_moved_beats_cover_the_signal() -> None:
    moved = shifted(np.arange(0.4, 10.0, 0.5), 0.5, 10.0)
    np.testing.assert_allclose(moved, np.arange(0.15, 10.0, 0.5), atol=1e-9)
