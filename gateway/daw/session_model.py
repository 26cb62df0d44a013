"""A session as every DAW has it: tracks with clips, markers, and a tempo map. Each format has a writer of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.daw.tempo_map import TempoMap


@dataclass(frozen=True)
class AudioFile:
    """A WAV file of the session, at the session's sample rate."""

    name: str
    """Name of the file without its folder."""
    frames: int
    channels: int


@dataclass(frozen=True)
class Note:
    """A note of a MIDI clip."""

    start_beats: float
    """From the start of the clip."""
    length_beats: float
    pitch: int
    """MIDI note number."""
    velocity: int
    """1 to 127"""
    channel: int = 0


@dataclass(frozen=True)
class Track:
    """A track with one clip: audio, or else notes."""

    name: str
    colour: str
    """As "#rrggbb"."""
    start_seconds: float
    """Where the clip begins."""
    audio: AudioFile | None = None
    notes: Sequence[Note] = ()
    midi_name: str = ""
    """Name of the MIDI file that has the notes, without its folder."""
    length_beats: float = 0.0
    """Length of the clip with notes."""
    gain_db: float = 0.0
    is_muted: bool = False
    is_part: bool = False
    """Whether it is a stem or the notes of the take before it."""


@dataclass(frozen=True)
class Marker:
    """A section of the music, or another place with a name."""

    seconds: float
    name: str
    colour: str


@dataclass(frozen=True)
class DawSession:
    """A session."""

    name: str
    sample_rate_hz: int
    seconds: float
    """Length of the music."""
    tempo_map: TempoMap
    tracks: Sequence[Track]
    markers: Sequence[Marker] = ()
    comment: str = ""
    """What a person should know about it, such as the key."""
    audio_folder: str = "audio"
    """Where the audio files are, relative to the session's folder, with forward slashes."""
    midi_folder: str = "audio"
    details: dict[str, str] = field(default_factory=dict)
    """What was asked of the models, for the session's own fields: title, artist and so on."""
