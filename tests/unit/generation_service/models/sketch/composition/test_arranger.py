"""The arranger: where notes begin and end, grooves, swing and bass lines."""

import numpy as np
import pytest

from generation_service.models.sketch.composition.arranger import Arranger
from generation_service.models.sketch.composition.plan import build_plan
from generation_service.models.sketch.composition.prompt_parser import parse_prompt

RATE = 32_000


def arranger(prompt: str, seconds: float, seed: int = 3) -> Arranger:
    plan = build_plan(parse_prompt(prompt), np.random.default_rng(seed))
    return Arranger.for_length(plan, seed, round(seconds * RATE), RATE)


@pytest.mark.parametrize("genre", ["trap", "jazz", "house", "classical", "rock"])
def test_notes_stop_at_the_closing_chord(genre: str) -> None:
    piece = arranger(genre, 30.0)
    end = piece.form.end_frame
    assert end is not None
    for number in range(piece.form.bars):
        for note in piece.write_bar(number):
            assert 0 <= note.start < end
            assert note.start + note.gate <= end or not note.pitches
    close = piece.write_bar(piece.form.bars)
    assert {note.start for note in close} == {end}
    tonic = piece.plan.key.tonic
    assert tonic in {pitch % 12 for note in close for pitch in note.pitches}


@pytest.mark.parametrize("prompt", ["house without drums", "strings only", "ambient", "rock, no drums"])
def test_without_drums_there_are_no_drum_notes(prompt: str) -> None:
    piece = arranger(prompt, 90.0)
    assert all(note.pitches for bar in range(piece.form.bars + 1) for note in piece.write_bar(bar))


def test_bars_can_be_written_in_any_order() -> None:
    forwards, backwards = arranger("jazz", 40.0), arranger("jazz", 40.0)
    bars = range(forwards.form.bars + 1)
    assert [forwards.write_bar(n) for n in bars] == [backwards.write_bar(n) for n in reversed(bars)][::-1]


def test_grooves_are_typical_of_their_genre() -> None:
    """The hits that are typical of each genre."""

    def steps(prompt: str, sound: str) -> set[int]:
        piece = arranger(prompt, 60.0)
        section = next(s for s in piece.form.sections if s.name == "B")
        bar = section.first_bar + 1
        start = piece.form.frame(bar)
        unit = piece.form.bar_frames / 16
        hits = [n for n in piece.write_bar(bar) if not n.pitches and n.sound == sound]
        return {round((n.start - start) / unit) for n in hits}

    assert steps("house", "house kick") == {0, 4, 8, 12}
    assert steps("house", "open hat") == {2, 6, 10, 14}
    assert steps("techno", "techno kick") == {0, 4, 8, 12}
    assert steps("trap", "trap snare") == {8}
    assert steps("rock", "rock snare") == {4, 12}
    assert {4, 12} <= steps("drum and bass", "break snare")
    assert {4, 12} <= steps("hip hop", "boom snare")
    assert {0, 4, 8, 12} <= steps("jazz", "ride")


def test_swing_depends_on_the_genre() -> None:
    def swing(prompt: str, unit_steps: int) -> float:
        piece = arranger(prompt, 60.0)
        unit = unit_steps * piece.form.bar_frames / 16
        delays = []
        for bar in range(piece.form.bars):
            start = piece.form.frame(bar)
            for note in piece.write_bar(bar):
                position = (note.start - start) / unit
                if not note.pitches and 0.8 < position % 2 < 1.7:
                    delays.append(position % 2 - 1.0)
        return float(np.median(delays))

    assert 0.25 < swing("jazz", 2) < 0.4
    assert swing("rock", 2) < 0.05
    assert 0.2 < swing("lo-fi", 1) < 0.4


def test_walking_bass_walks_in_quarters() -> None:
    piece = arranger("jazz", 40.0)
    bar = piece.form.sections[-1].first_bar
    walk = [n for n in piece.write_bar(bar) if n.sound == "upright bass"]
    assert len(walk) == 4
    assert len({n.pitches for n in walk}) >= 3
