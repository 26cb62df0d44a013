"""Takes a standard MIDI file of several tracks apart: the notes of each part, and a file for each part alone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from dgx_music.errors import DataLoss, FailedPrecondition
from gateway.daw.session_model import Note
from service_runtime.optional_deps import install_extra_command


@dataclass(frozen=True)
class MidiPart:
    """The notes of one track of a MIDI file."""

    name: str
    notes: Sequence[Note]
    length_beats: float
    file: bytes
    """A file of type 0 with this track and the tempo."""


def require_mido() -> None:
    """Raises FailedPrecondition with the way out if MIDI files can't be read here."""
    if find_spec("mido") is None:
        raise FailedPrecondition(
            f"reading MIDI files requires the package mido; install it with: {install_extra_command('midi')}",
            reason="MISSING_DEPENDENCY",
        )


def split_midi(content: bytes) -> list[MidiPart]:
    """Returns the parts that have notes, in the order of the file. Raises DataLoss if it is damaged."""
    import mido

    try:
        whole = mido.MidiFile(file=io.BytesIO(content))
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise DataLoss(f"the MIDI file is damaged: {error}", reason="DAMAGED_FILE") from error
    conductor = [message for message in _absolute(whole.tracks[0]) if message[1].is_meta] if whole.tracks else []
    parts = []
    for number, track in enumerate(whole.tracks):
        events = _absolute(track)
        notes = _notes(events, whole.ticks_per_beat)
        if not notes:
            continue
        name = next((message.name for _, message in events if message.type == "track_name"), f"Part {number}")
        length = max(note.start_beats + note.length_beats for note in notes)
        own = [event for event in events if event[1].type != "end_of_track"]
        tempo = [event for event in conductor if event[1].type in ("set_tempo", "time_signature", "key_signature")]
        file = _write(whole, own if track is whole.tracks[0] else tempo + own)
        parts.append(MidiPart(name, notes, length, file))
    return parts


def _absolute(track: Any) -> list[tuple[int, Any]]:
    """Returns the messages of a track with their times in ticks from its start."""
    time, events = 0, []
    for message in track:
        time += message.time
        events.append((time, message))
    return events


def _notes(events: list[tuple[int, Any]], ticks_per_beat: int) -> list[Note]:
    sounding: dict[tuple[int, int], list[tuple[int, int]]] = {}
    notes = []
    for time, message in events:
        if message.type not in ("note_on", "note_off"):
            continue
        key = message.channel, message.note
        if message.type == "note_on" and message.velocity:
            sounding.setdefault(key, []).append((time, message.velocity))
        elif sounding.get(key):
            start, velocity = sounding[key].pop(0)
            length = max(time - start, 1) / ticks_per_beat
            notes.append(Note(start / ticks_per_beat, length, message.note, velocity, message.channel))
    return sorted(notes, key=lambda note: (note.start_beats, note.pitch))


def _write(whole: Any, events: list[tuple[int, Any]]) -> bytes:
    import mido

    file = mido.MidiFile(type=0, ticks_per_beat=whole.ticks_per_beat)
    track = mido.MidiTrack()
    file.tracks.append(track)
    time = 0
    for at, message in sorted(events, key=lambda event: event[0]):
        track.append(message.copy(time=at - time))
        time = at
    buffer = io.BytesIO()
    file.save(file=buffer)
    return buffer.getvalue()
