"""The accompaniment."""

import numpy as np

from generation_service.models.sketch.composition.arranger import Arranger
from generation_service.models.sketch.composition.notes import Note
from generation_service.models.sketch.composition.plan import build_plan
from generation_service.models.sketch.composition.prompt_parser import parse_prompt

RATE = 32_000


def chords(prompt: str, sound: str, seed: int = 3) -> tuple[Arranger, list[Note]]:
    plan = build_plan(parse_prompt(prompt), np.random.default_rng(seed))
    piece = Arranger.for_length(plan, seed, 40 * RATE, RATE)
    section = next(s for s in piece.form.sections if s.kind == "chorus")
    bars = range(section.first_bar, section.first_bar + section.bars)
    return piece, [note for bar in bars for note in piece.write_bar(bar) if note.sound == sound]


def test_strum_goes_from_string_to_string_and_back() -> None:
    _, notes = chords("folk", "steel guitar")
    by_hit: dict[float, list[Note]] = {}
    for note in notes:
        if note.pan < 0:
            by_hit.setdefault(note.grid, []).append(note)
    down = [hit for grid, hit in by_hit.items() if grid % 1 == 0]
    up = [hit for grid, hit in by_hit.items() if grid % 1 != 0]
    assert down
    assert up
    for hit in down:
        assert [n.pitches for n in sorted(hit, key=lambda n: n.start)] == sorted(n.pitches for n in hit)
    for hit in up:
        assert [n.pitches for n in sorted(hit, key=lambda n: n.start)] == sorted((n.pitches for n in hit), reverse=True)
        assert len(hit) <= 3


def test_skank_is_on_the_off_beats_and_short() -> None:
    piece, notes = chords("reggae", "clean guitar")
    accents = {note.grid % 1 for note in notes if note.velocity > 0.7}
    assert accents == {0.5}
    assert np.median([note.gate for note in notes]) < piece.form.bar_frames / 8


def test_palm_mutes_are_muted() -> None:
    _, notes = chords("metal", "distorted guitar")
    muted = [note for note in notes if note.articulation == "mute"]
    assert muted
    open_gates = [note.gate for note in notes if note.articulation == "" and note.pan > 0]
    assert max(note.gate for note in muted) < min(open_gates)


def test_pads_hold_each_chord_once() -> None:
    piece, notes = chords("ambient in C minor", "warm pad")
    assert len(notes) >= 2
    held = notes[:-1]  # The last one may be the cadence.
    assert all(note.grid % 8 == notes[0].grid % 8 for note in held)
    assert all(note.gate >= 1.9 * piece.form.bar_frames for note in held[:-1])
