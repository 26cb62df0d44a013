"""Grooves, fills, and what leads to a drop."""

import numpy as np
import pytest

from generation_service.models.sketch.composition.arranger import Arranger
from generation_service.models.sketch.composition.notes import Note
from generation_service.models.sketch.composition.plan import build_plan
from generation_service.models.sketch.composition.prompt_parser import parse_prompt

RATE = 32_000


def arranger(prompt: str, seconds: float, seed: int = 3) -> Arranger:
    plan = build_plan(parse_prompt(prompt), np.random.default_rng(seed))
    return Arranger.for_length(plan, seed, round(seconds * RATE), RATE)


def drums(piece: Arranger, bar: int, sound: str = "") -> list[Note]:
    return [note for note in piece.write_bar(bar) if not note.pitches and note.sound.endswith(sound)]


@pytest.mark.parametrize(
    ("genre", "sound", "expected"),
    [
        ("house", "house kick", {0, 4, 8, 12}),
        ("house", "open hat", {2, 6, 10, 14}),
        ("techno", "techno kick", {0, 4, 8, 12}),
        ("trance", "open hat", {2, 6, 10, 14}),
        ("trap", "trap snare", {8}),
        ("dubstep", "dub snare", {8}),
        ("rock", "rock snare", {4, 12}),
        ("synthwave", "gated snare", {4, 12}),
        ("drum and bass", "break snare", {4, 12}),
        ("hip hop", "boom snare", {4, 12}),
        ("funk", "funk snare", {4, 12}),
        ("reggae", "cross stick", {8}),
        ("jazz", "ride", {0, 4, 8, 12}),
        ("blues", "snare", {4, 12}),
    ],
)
def test_grooves_are_typical_of_their_genre(genre: str, sound: str, expected: set[int]) -> None:
    """The accents that are typical of each genre."""
    for seed in (1, 2, 3):
        piece = arranger(genre, 90.0, seed)
        section = next(s for s in piece.form.sections if s.kind == "chorus")
        accents = {n.grid % 4 * 4 for n in drums(piece, section.first_bar + 1, sound) if n.velocity > 0.6}
        assert expected <= accents
        assert not ({4, 12} & accents if expected == {8} else set())


def test_ghost_notes_are_soft() -> None:
    piece = arranger("funk", 40.0)
    snares = [note for bar in range(piece.form.bars) for note in drums(piece, bar, "funk snare")]
    ghosts = [note for note in snares if note.articulation == "ghost"]
    assert len(ghosts) > 0.3 * len(snares)
    loud = [note.gain for note in snares if note.velocity > 0.6]
    assert max(note.gain for note in ghosts) < 0.5 * min(loud)


def test_riser_ends_where_the_drop_begins() -> None:
    piece = arranger("house at 126 bpm", 90.0)
    drops = [piece.form.frame(s.first_bar) for s in piece.form.sections if s.kind == "chorus"]
    rises = [n.start for bar in range(piece.form.bars) for n in drums(piece, bar, "riser")]
    assert sorted(rises) == [drop - 2 * RATE for drop in drops]


def test_roll_becomes_denser_before_the_drop() -> None:
    piece = arranger("trance", 90.0)
    build = next(s for s in piece.form.sections if s.kind == "build")
    last = build.first_bar + build.bars - 1
    before, after = (drums(piece, bar, "clap") for bar in (last - 1, last))
    assert len(before) < len(after)
    assert max(note.velocity for note in before) < max(note.velocity for note in after)
    assert not drums(piece, last, "kick")


@pytest.mark.parametrize("genre", ["rock", "pop", "funk", "drum and bass", "reggae", "trap", "jazz"])
def test_fill_leads_to_the_next_section(genre: str) -> None:
    """The last bar before a chorus differs from the bar before it."""
    piece = arranger(genre, 90.0)
    chorus = next(s for s in piece.form.sections if s.kind == "chorus")
    last = chorus.first_bar - 1
    scores = [{(note.sound, note.grid % 4) for note in drums(piece, bar)} for bar in (last - 1, last)]
    assert scores[0] != scores[1]
