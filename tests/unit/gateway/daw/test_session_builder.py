"""Names, markers and mutes of a session."""

from __future__ import annotations

import pytest

from dgx_music.storage.v1.storage_pb2 import Generation
from gateway.daw.midi_parts import MidiPart
from gateway.daw.session_builder import Take, build_session, name_takes
from gateway.daw.session_model import AudioFile, Note
from gateway.daw.take_files import Stem
from gateway.daw.take_layout import Placement, TakeGrid
from gateway.daw.tempo_map import TempoPoint

RATE_HZ = 48_000


def take(name, bpm=120.0, sections=(), **more):
    generation = Generation(id=f"id of {name}", prompt=name, model_name="sketch", model_version="2", seed=7)
    generation.metadata.update({"key": "A minor", "genre": "house"})
    grid = TakeGrid((TempoPoint(0.0, 0, bpm),), 4, is_known=True)
    return Take(generation, name, AudioFile(f"{name}.wav", 10 * RATE_HZ, 2), sections, grid, **more)


def build(takes, placement=None):
    return build_session("x", takes, RATE_HZ, placement, ("audio", "midi"))


def test_names_are_different_and_legal_everywhere():
    prompts = ["AC/DC?", "ac_dc_", "AC/DC?", "con", "", "x" * 300, "  two\nlines ", "日本語" * 40]
    names = name_takes([Generation(prompt=prompt, seed=1) for prompt in prompts])
    assert len({name.casefold() for name in names}) == len(prompts)
    assert all(len(name.encode()) < 200 and not set(name) & set('/\\:*?"<>|\n') for name in names)
    assert names[:3] == ["AC_DC_ 1", "ac_dc_ 1 (2)", "AC_DC_ 1 (3)"]


def test_layers_play_the_first_take_alone_and_show_its_sections():
    first = take("one", sections=[(0.0, "intro"), (4.0003, "A")])
    session, placement = build([first, take("two", sections=[(0.0, "A")])])
    assert placement is Placement.LAYERS
    assert [track.is_muted for track in session.tracks] == [False, True]
    assert session.tracks[0].colour != session.tracks[1].colour
    assert [(marker.seconds, marker.name) for marker in session.markers] == [(0.0, "intro"), (4.0, "A")]


def test_sequence_plays_all_takes_and_names_them_at_their_beginning():
    takes = [take("one", sections=[(0.0, "intro"), (4.0, "A")]), take("two", 90.0), take("three", 91.5, [(2.0, "B")])]
    session, placement = build(takes)
    assert placement is Placement.SEQUENCE
    assert not any(track.is_muted for track in session.tracks)
    starts = [track.start_seconds for track in session.tracks]
    assert [(marker.seconds, marker.name) for marker in session.markers] == [
        (0.0, "one: intro"), (4.0, "A"), (starts[1], "two"), (starts[2], "three"),
        (pytest.approx(starts[2] + 2.0), "B"),
    ]  # fmt: skip
    assert session.seconds == pytest.approx(starts[2] + 10.0)


def test_stems_and_notes_are_muted_below_their_take():
    stems = [Stem(name, AudioFile(f"{name}.wav", 10 * RATE_HZ, 2), -1.5) for name in ("drums", "bass")]
    part = MidiPart("Bass: synth", [Note(0.0, 1.0, 36, 100)], 8.0, b"")
    session, _ = build([take("one", stems=stems, midi=[("bass.mid", part)]), take("two")])
    assert [track.name for track in session.tracks] == [
        "one",
        "drums - one",
        "bass - one",
        "Bass, synth MIDI - one",
        "two",
    ]
    assert [track.is_part for track in session.tracks] == [False, True, True, True, False]
    assert [track.is_muted for track in session.tracks] == [False, True, True, True, True]
    assert session.tracks[1].gain_db == -1.5
    assert session.tracks[3].length_beats == 8.0


def test_tracks_never_share_a_name():
    stems = [Stem(name, AudioFile(f"{name}.wav", RATE_HZ, 2), 0.0) for name in ("Bass", "bass")]
    session, _ = build([take("one", stems=stems)])
    assert len({track.name.casefold() for track in session.tracks}) == 3


def test_session_says_what_the_takes_are():
    session, _ = build([take("one")])
    assert session.comment == "one: 120 BPM, A minor, model sketch 2, seed 7, generation id of one"
    assert session.details["Genre"] == "house"
    assert "Generated with DGX Music" in session.details["Comment"]


def test_no_text_of_a_take_breaks_a_file():
    hostile = 'a\x1b]0;b\x07<c>&"\ud800\nd'
    one = take("one", notes=[f"no stems: {hostile}"])
    one.generation.model_name = "m\x00\x1b"
    one.generation.metadata.update({"key": hostile.replace("\ud800", ""), "genre": "\x08house"})
    session, _ = build([one])
    texts = [session.comment, *session.details.values()]
    assert all(line.isprintable() for text in texts for line in text.split("\n")), texts
    assert len(session.comment.split("\n")) == 2
