"""Parts of MIDI files."""

from __future__ import annotations

import io

import mido
import pytest

from dgx_music.errors import DataLoss, FailedPrecondition
from gateway.daw import midi_parts
from gateway.daw.midi_parts import require_mido, split_midi
from gateway.daw.session_model import Note


def midi_file():
    file = mido.MidiFile(type=1, ticks_per_beat=480)
    conductor, bass, empty = (file.add_track(name) for name in ("Song", "Bass: synth", "Nothing"))
    conductor.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(124.0)))
    conductor.append(mido.MetaMessage("time_signature", numerator=3, denominator=4))
    bass.append(mido.Message("program_change", program=38, channel=1))
    bass.append(mido.Message("note_on", note=36, velocity=100, channel=1, time=240))
    bass.append(mido.Message("note_on", note=36, velocity=0, channel=1, time=480))
    bass.append(mido.Message("note_on", note=40, velocity=80, channel=1, time=0))
    bass.append(mido.Message("note_off", note=40, channel=1, time=960))
    del empty
    buffer = io.BytesIO()
    file.save(file=buffer)
    return buffer.getvalue()


def test_parts_have_their_notes_and_a_file_of_their_own():
    (part,) = split_midi(midi_file())
    assert (part.name, part.length_beats) == ("Bass: synth", 3.5)
    assert part.notes == [Note(0.5, 1.0, 36, 100, 1), Note(1.5, 2.0, 40, 80, 1)]
    alone = mido.MidiFile(file=io.BytesIO(part.file))
    assert (alone.type, len(alone.tracks), alone.ticks_per_beat) == (0, 1, 480)
    kinds = [message.type for message in alone.tracks[0]]
    assert {"set_tempo", "time_signature", "program_change", "track_name"} <= set(kinds)
    assert sum(message.time for message in alone.tracks[0]) == 240 + 480 + 960
    assert [message.name for message in alone.tracks[0] if message.type == "track_name"] == ["Bass: synth"]
    assert split_midi(part.file)[0].notes == part.notes


@pytest.mark.parametrize("content", [b"", b"MThd", midi_file()[:40], b"RIFF" + bytes(50)])
def test_damaged_file_is_rejected(content):
    with pytest.raises(DataLoss, match="damaged"):
        split_midi(content)


def test_missing_package_is_named(monkeypatch):
    require_mido()
    monkeypatch.setattr(midi_parts, "find_spec", lambda name: None)
    with pytest.raises(FailedPrecondition, match=r"dgx-music\[midi\]"):
        require_mido()
