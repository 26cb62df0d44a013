"""Writes a score as a standard MIDI file of type 1, by mido."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from dgx_music.errors import FailedPrecondition
from generation_service.models.notation.score import Score, ScoreTrack
from service_runtime.optional_deps import install_extra_command

if TYPE_CHECKING:
    from mido import Message, MetaMessage, MidiTrack

TICKS_PER_BEAT: Final = 960
"""The resolution that DAWs use: half a millisecond at 120 BPM."""

_DRUM_CHANNEL: Final = 9
_CHANNELS: Final = 16
_PAN_CONTROLLER: Final = 10
_MAX_NAME_CHARACTERS: Final = 100
_SIGNATURES: Final = {
    "G#": "Ab", "D#": "Eb", "A#": "Bb", "E#": "F", "B#": "C", "Fb": "E",
    "Dbm": "C#m", "Gbm": "F#m", "Cbm": "Bm", "Fbm": "Em", "E#m": "Fm", "B#m": "Cm",
}  # fmt: skip
"""Keys with more than seven accidentals, which have no key signature → the same key, spelled as one that has."""


def encode_midi(score: Score, title: str, description: str) -> bytes:
    """Returns the file: a track with tempo, metre, key and the names of the sections, then one for each track.

    Notes stand where they sound, to half a tick. Raises FailedPrecondition if mido is not installed.
    """
    try:
        from mido import MetaMessage, MidiFile
    except ImportError as error:
        raise FailedPrecondition(
            f"MIDI files are written by mido, which is not installed; install it on the server with: "
            f"{install_extra_command('midi')}",
            reason="MIDI_LIBRARY_MISSING",
        ) from error
    clock = _Clock(score)
    file = MidiFile(type=1, ticks_per_beat=TICKS_PER_BEAT, charset="utf-8")
    conductor: list[tuple[int, Message | MetaMessage]] = [
        (0, MetaMessage("track_name", name=_printable(title))),
        (0, MetaMessage("text", text=description)),
        (0, MetaMessage("set_tempo", tempo=clock.tempo)),
        (0, MetaMessage("time_signature", numerator=score.beats_per_bar, denominator=4)),
        (0, MetaMessage("key_signature", key=_signature(score))),
    ]
    for section in score.sections:
        conductor.append((clock.ticks(section.start_frame), MetaMessage("marker", text=section.name)))
    end = clock.ticks(score.total_frames)
    file.tracks.append(_track(conductor, end))
    channel = 0
    for track in score.tracks:
        if track.program is None:
            file.tracks.append(_track(_events(track, _DRUM_CHANNEL, clock), end))
            continue
        file.tracks.append(_track(_events(track, channel, clock), end))
        channel = (channel + 1) % _CHANNELS
        channel += channel == _DRUM_CHANNEL
    data = io.BytesIO()
    file.save(file=data)
    return data.getvalue()


class _Clock:
    """Converts frames to ticks. A tempo is stored in whole microseconds, and the ticks are those of the stored one, so
    that long pieces do not drift."""

    def __init__(self, score: Score) -> None:
        self.tempo = round(60e6 / score.bpm)
        self._ticks_per_frame = 1e6 / score.sample_rate_hz / self.tempo * TICKS_PER_BEAT

    def ticks(self, frame: int) -> int:
        return round(frame * self._ticks_per_frame)


def _events(track: ScoreTrack, channel: int, clock: _Clock) -> list[tuple[int, Message | MetaMessage]]:
    from mido import Message, MetaMessage

    events: list[tuple[int, Message | MetaMessage]] = [(0, MetaMessage("track_name", name=_printable(track.name)))]
    if track.program is not None:
        events.append((0, Message("program_change", channel=channel, program=track.program)))
    pan = max(0, min(127, round(64 + 63 * track.pan)))
    events.append((0, Message("control_change", channel=channel, control=_PAN_CONTROLLER, value=pan)))
    for note in track.notes:
        start = clock.ticks(note.start_frame)
        end = max(start + 1, clock.ticks(note.end_frame))
        events.append((start, Message("note_on", channel=channel, note=note.pitch, velocity=note.velocity)))
        events.append((end, Message("note_off", channel=channel, note=note.pitch, velocity=0)))
    return events


def _track(events: Sequence[tuple[int, Message | MetaMessage]], end: int) -> MidiTrack:
    """The events in order of time, with a note-off before a note-on of the same time, and the end at tick `end`."""
    from mido import MetaMessage, MidiTrack

    track = MidiTrack()
    now = 0
    for tick, message in sorted(events, key=lambda event: (event[0], event[1].type != "note_off")):
        message.time = tick - now
        now = tick
        track.append(message)
    track.append(MetaMessage("end_of_track", time=max(0, end - now)))
    return track


def _signature(score: Score) -> str:
    name = score.tonic + ("m" if score.is_minor else "")
    return _SIGNATURES.get(name, name)


def _printable(text: str) -> str:
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())[:_MAX_NAME_CHARACTERS]
