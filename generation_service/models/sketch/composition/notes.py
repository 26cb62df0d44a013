"""The note: what the arrangement writes and the mixer plays."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Note:
    """One sound at one place. Frames count from the beginning of the piece."""

    start: int
    gate: int
    """How long it is held; its release rings on after that. Not used by drums."""
    sound: str
    gain: float
    pitches: tuple[int, ...] = ()
    """MIDI pitches; empty for a drum or a texture."""
    pan: float = 0.0
    """-1 left … 1 right."""
    send: float = 0.0
    """Share of the level that goes to the reverb."""
    ducked: bool = False
    """Makes way for the kick."""
    glide: int = 0
    """Semitones to slide, 808 only."""

    @property
    def is_kick(self) -> bool:
        return not self.pitches and self.sound.endswith("kick")
