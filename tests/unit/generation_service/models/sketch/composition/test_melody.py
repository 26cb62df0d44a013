"""Melodies: motif, answer and cadence."""

from itertools import pairwise

import numpy as np
import pytest

from generation_service.models.sketch.composition.genres import STYLES
from generation_service.models.sketch.composition.melody import PERIOD_BARS, build_period, resolve_pitch
from generation_service.models.sketch.composition.music_theory import build_key, parse_chord
from generation_service.models.sketch.composition.style import Style


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_period_repeats_its_motif_and_closes_on_the_tonic(style: Style) -> None:
    for seed in range(8):
        period = build_period(np.random.default_rng(seed), style.cells, style.lead_hold, 0)
        bars = [tuple(note.step % 16 for note in period if note.step // 16 == bar) for bar in range(PERIOD_BARS)]
        assert len(set(bars[:-1])) < PERIOD_BARS - 1, "no bar of rhythm returns"
        assert period[-1].is_final
        assert period[-1].degree % 7 == 0
        for before, after in pairwise(period):
            assert before.step + before.length <= after.step
            assert -7 <= after.degree <= 13
        key = build_key(2, minor=True)
        assert resolve_pitch(period[-1], key, parse_chord("i", 2), 60, style.scale) % 12 == 2


def test_long_notes_are_chord_tones() -> None:
    key, chord = build_key(0, minor=False), parse_chord("V7", 0)
    period = build_period(np.random.default_rng(4), STYLES["trance"].cells, 12, 0)
    for note in period[:-1]:
        if note.length >= 4:
            assert resolve_pitch(note, key, chord, 60, "diatonic") % 12 in chord.pitch_classes


def test_verse_lies_below_the_chorus() -> None:
    def middle(lift: int) -> float:
        periods = [build_period(np.random.default_rng(seed), STYLES["pop"].cells, 8, lift) for seed in range(30)]
        return float(np.mean([note.degree for period in periods for note in period]))

    assert middle(2) > middle(0) + 1.0
