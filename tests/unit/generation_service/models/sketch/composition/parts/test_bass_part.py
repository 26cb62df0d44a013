"""Bass lines."""

from itertools import pairwise

import numpy as np
import pytest

from generation_service.models.sketch.composition.arranger import Arranger
from generation_service.models.sketch.composition.notes import Note
from generation_service.models.sketch.composition.plan import build_plan
from generation_service.models.sketch.composition.prompt_parser import parse_prompt

RATE = 32_000


def bass(prompt: str, seed: int = 3) -> tuple[Arranger, list[list[Note]]]:
    """The arranger, and the bass of each bar of its first chorus."""
    plan = build_plan(parse_prompt(prompt), np.random.default_rng(seed))
    piece = Arranger.for_length(plan, seed, 60 * RATE, RATE)
    chorus = next(s for s in piece.form.sections if s.kind == "chorus")
    bars = range(chorus.first_bar, chorus.first_bar + chorus.bars)
    return piece, [[note for note in piece.write_bar(bar) if note.stem == "bass"] for bar in bars]


def test_walking_bass_walks_in_quarters_and_leads_to_the_next_root() -> None:
    _, bars = bass("jazz in C major")
    for bar in bars:
        quarters = {note.grid % 4 for note in bar if note.articulation != "ghost"}
        assert {0, 1, 2, 3} <= quarters
    assert len({note.pitches for bar in bars for note in bar}) >= 5
    for bar, following in pairwise(bars):
        step = abs(bar[-1].pitches[0] - following[0].pitches[0])
        assert step % 12 in (1, 11, 2, 10, 0)


@pytest.mark.parametrize("genre", ["house", "rock", "pop", "trance", "folk", "classical", "bossa nova"])
def test_bar_begins_with_the_root(genre: str) -> None:
    piece, bars = bass(genre)
    for bar in bars[:-1]:
        first = bar[0]
        number = int(first.grid // 4)
        assert first.pitches[0] % 12 == piece.harmony.at(number, first.grid % 4 * 4).chord.root


def test_boogie_swings_and_climbs() -> None:
    _, bars = bass("blues in E major")
    assert len({note.pitches[0] for note in bars[0]}) >= 3


def test_wobble_has_a_rate_in_time_with_the_beat() -> None:
    piece, bars = bass("dubstep at 140 bpm")
    rates = {note.lfo_hz * piece.form.bar_frames / RATE for bar in bars for note in bar}
    assert len(rates) >= 2
    assert all(rate == pytest.approx(round(rate), abs=0.02) for rate in rates)


def test_funk_has_ghost_notes_and_octaves() -> None:
    _, bars = bass("funk")
    notes = [note for bar in bars for note in bar]
    assert any(note.articulation == "ghost" for note in notes)
    assert max(n.pitches[0] for n in notes) - min(n.pitches[0] for n in notes) >= 10
