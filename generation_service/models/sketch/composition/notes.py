"""The note, which the arranger writes and the mixer plays."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Note:
    """One sound at one time. Frames are counted from the beginning of the piece."""

    start: int
    gate: int
    """How long the note is held, in frames; its release follows. Drums ignore it."""
    sound: str
    gain: float
    pitches: tuple[int, ...] = ()
    """MIDI pitches; empty for a drum or a texture."""
    pan: float = 0.0
    """-1 left … 1 right."""
    send: float = 0.0
    """Share of the level that is sent to the reverb."""
    ducked: bool = False
    """Whether the side-chain lowers it under a kick."""
    glide: int = 0
    """Semitones to slide; only for the 808."""
    stem: str = "drums"
    """drums, bass, chords, melody or texture."""
    velocity: float = 0.8
    """0 … 1: how hard it is played, for its timbre and for MIDI. `gain` already has the level that follows from it."""
    articulation: str = ""
    """"" (normal), ghost, mute (a palm mute, or a choked string) or slide (legato, from the note before)."""
    echo: float = 0.0
    """Share of the level that is sent to the delay in time with the beat."""
    lfo_hz: float = 0.0
    """How often per second the filter opens; only for a wobble bass."""
    grid: float = 0.0
    """Where the note stands in the score, in quarter notes from the beginning, without swing and human timing."""

    @property
    def is_kick(self) -> bool:
        return not self.pitches and self.sound.endswith("kick")
