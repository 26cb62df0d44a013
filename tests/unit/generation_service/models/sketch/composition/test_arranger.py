"""The arranger: where notes begin and end, grooves, swing and bass lines."""

import numpy as np
import pytest

from generation_service.models.sketch.composition.arranger import MAX_JITTER_FRAMES, Arranger
from generation_service.models.sketch.composition.genres import STYLES
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


def test_loop_is_written_without_an_ending() -> None:
    plan = build_plan(parse_prompt("house"), np.random.default_rng(3))
    loop = Arranger.for_loop(plan, 3, 4, 4 * 60_000, RATE)
    assert loop.form.end_frame is None
    notes = [note for bar in range(4) for note in loop.write_bar(bar)]
    assert {"drums", "bass", "chords", "melody"} == {note.stem for note in notes}
    assert not {"riser", "impact", "crash"} & {note.sound for note in notes}
    assert loop.write_bar(4) == []


@pytest.mark.parametrize("genre", STYLES)
def test_every_note_has_its_stem_velocity_and_place(genre: str) -> None:
    piece = arranger(genre, 40.0)
    beat_frames = piece.form.bar_frames / 4
    for number in range(piece.form.bars + 1):
        for note in piece.write_bar(number):
            assert note.stem == ("drums" if not note.pitches else note.stem)
            assert note.stem in ("drums", "bass", "chords", "melody")
            assert 0.0 < note.velocity <= 1.0
            assert all(20 <= pitch <= 103 for pitch in note.pitches), note
            late = note.start - note.grid * beat_frames
            # Swing delays an eighth by a third at most, and a roll or a grace note takes less than that.
            assert -MAX_JITTER_FRAMES - 2 <= late <= 0.2 * beat_frames + 2 * MAX_JITTER_FRAMES + 0.09 * RATE, note
            assert note.lfo_hz == 0.0 or note.sound in ("wobble", "growl")


@pytest.mark.parametrize("genre", STYLES)
def test_piece_grows_towards_its_main_section(genre: str) -> None:
    """The intro is thinner than the last chorus: in notes, or where a genre has few of them, in parts."""
    piece = arranger(genre, 60.0)

    def loudness(kind: str) -> float:
        section = [s for s in piece.form.sections if s.kind == kind][-1]
        bars = range(section.first_bar, section.first_bar + section.bars)
        return sum(note.gain for bar in bars for note in piece.write_bar(bar)) / len(bars)

    assert loudness("intro") < 0.85 * loudness("chorus")


def test_seeds_write_different_music() -> None:
    """Tempo and key are given, so that only chords, rhythms and melodies can differ."""
    for genre in STYLES:
        scores = set()
        for seed in range(3):
            piece = arranger(f"{genre} at 100 bpm in C minor", 16.0, seed)
            notes = [note for bar in range(piece.form.bars) for note in piece.write_bar(bar)]
            scores.add(tuple(sorted((note.grid, note.pitches) for note in notes if note.pitches)))
        assert len(scores) == 3, genre
