"""MIDI files, read back by mido."""

from __future__ import annotations

import io

import mido
import pytest

from generation_service.models.base import Section
from generation_service.models.notation.score import Score, ScoreNote, ScoreTrack
from generation_service.parts.midi_file import TICKS_PER_BEAT, encode_midi

RATE_HZ = 32_000


def score(*tracks: ScoreTrack, **changes) -> Score:
    fields = {
        "sample_rate_hz": RATE_HZ, "total_frames": 600 * RATE_HZ, "bpm": 87.3, "beats_per_bar": 4, "tonic": "C",
        "is_minor": True, "sections": (Section("intro", 0, RATE_HZ), Section("drop", RATE_HZ, 600 * RATE_HZ)),
        **changes,
    }  # fmt: skip
    return Score(tracks=tracks, **fields)


def read(data: bytes) -> mido.MidiFile:
    return mido.MidiFile(file=io.BytesIO(data), charset="utf-8")


def absolute_seconds(file: mido.MidiFile, kind: str) -> list[float]:
    now, found = 0.0, []
    for message in file:
        now += message.time
        if message.type == kind:
            found.append(now)
    return found


def test_notes_stand_where_they_sound_after_ten_minutes() -> None:
    """The tempo of the file is in whole microseconds; notes do not drift by it."""
    starts = [0, 12_345, 599 * RATE_HZ]
    notes = [ScoreNote(start, start + 800, 60, 90) for start in starts]
    file = read(encode_midi(score(ScoreTrack("Bass", "bass", 33, notes=notes)), "t", "d"))
    heard = absolute_seconds(file, "note_on")
    assert heard == pytest.approx([start / RATE_HZ for start in starts], abs=0.0005)
    assert file.length == pytest.approx(600, abs=0.001)


def test_tracks_have_names_programs_and_channels() -> None:
    note = [ScoreNote(0, 800, 60, 90)]
    tracks = [ScoreTrack(f"Part {n}", "chords", n, pan=-1.0 + n / 6, notes=list(note)) for n in range(12)]
    file = read(encode_midi(score(ScoreTrack("Drums", "drums", None, notes=list(note)), *tracks), "ünïcode\n", "d"))
    assert [track.name for track in file.tracks] == ["ünïcode", "Drums", *(f"Part {n}" for n in range(12))]
    channels = [next(m.channel for m in track if m.type == "note_on") for track in file.tracks[1:]]
    assert channels == [9, *range(9), 10, 11, 12]
    programs = [m.program for track in file.tracks for m in track if m.type == "program_change"]
    assert programs == list(range(12))
    pans = [m.value for track in file.tracks for m in track if m.is_cc(10)]
    assert pans[:3] == [64, 1, 12]


def test_a_repeated_key_is_released_before_it_is_struck_again() -> None:
    notes = [ScoreNote(0, 16_000, 60, 90), ScoreNote(16_000, 32_000, 60, 80)]
    file = read(encode_midi(score(ScoreTrack("Bass", "bass", 33, notes=notes), bpm=120.0), "t", "d"))
    kinds = [(m.type, m.time) for m in file.tracks[1] if m.type.startswith("note_")]
    assert kinds == [("note_on", 0), ("note_off", TICKS_PER_BEAT), ("note_on", 0), ("note_off", TICKS_PER_BEAT)]


def test_sections_are_markers() -> None:
    file = read(encode_midi(score(), "t", "d"))
    assert [(m.text, m.type) for m in file.tracks[0] if m.type == "marker"] == [("intro", "marker"), ("drop", "marker")]
    assert absolute_seconds(file, "marker") == pytest.approx([0, 1], abs=0.0005)


@pytest.mark.parametrize("tonic", [letter + sign for letter in "ABCDEFG" for sign in ("", "#", "b")])
@pytest.mark.parametrize("is_minor", [False, True])
def test_every_key_has_a_signature(tonic: str, is_minor: bool) -> None:
    file = read(encode_midi(score(tonic=tonic, is_minor=is_minor), "t", "d"))
    key = next(m.key for m in file.tracks[0] if m.type == "key_signature")
    pitch = dict(zip("CDEFGAB", (0, 2, 4, 5, 7, 9, 11), strict=True))

    def pitch_class(name: str) -> int:
        return (pitch[name[0]] + name.count("#") - name[1:].count("b")) % 12

    assert key.endswith("m") == is_minor
    assert pitch_class(key.removesuffix("m")) == pitch_class(tonic)
