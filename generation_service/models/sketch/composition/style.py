"""The conventions that define a genre: the types of the data in `genres.py`.

A rhythm is a string with one character per sixteenth, 16 per bar; longer strings span several bars. `X` is an accent,
`x` a normal hit, `o` a soft one, `r` a roll of three within the sixteenth, and `.` a rest. The notes of chord and bass
rhythms last until the next hit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

VELOCITIES: Final = {"X": 1.0, "x": 0.78, "o": 0.4, "r": 0.7}

Rhythms = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drum:
    """One drum of the kit. `rhythms` are alternatives, of which each section uses one."""

    sound: str
    rhythms: Rhythms
    gain: float
    pan: float = 0.0
    energy: float = 0.3
    """Plays in sections of at least this energy (0 … 1)."""
    send: float = 0.06


@dataclass(frozen=True, slots=True)
class Part:
    """A pitched part: its sound, its rhythm, and its place in the mix."""

    sound: str
    gain: float
    low: int
    """The lowest MIDI pitch of its range."""
    rhythms: Rhythms = ("X...............",)
    send: float = 0.2
    pan: float = 0.0
    gate: float = 1.0
    """Share of the time to the next hit for which a note is held."""
    energy: float = 0.0
    ducked: bool = True


@dataclass(frozen=True, slots=True)
class Style:
    """The conventions of a genre. Times are in seconds unless their name says otherwise."""

    name: str
    bpm: tuple[int, int]
    minor_share: float
    """Probability of a minor key if the prompt does not say."""
    minor_loops: tuple[tuple[str, ...], ...]
    """Chord loops in Roman numerals. Each chord lasts `chord_bars` bars."""
    major_loops: tuple[tuple[str, ...], ...]
    chords: Part
    bass: Part
    lead: Part
    pad: Part | None = None
    drums: tuple[Drum, ...] = ()
    chord_bars: int = 1
    chord_style: str = "block"
    """block, arpeggio, power"""
    bass_style: str = "root"
    """root, octaves, walking, trap, groove"""
    lead_density: float = 0.5
    lead_energy: float = 0.5
    """The lead plays in sections of at least this energy."""
    rootless: bool = False
    swing: float = 0.0
    """Delay of every second unit, as a share of the unit: 0.33 gives triplets."""
    swing_eighths: bool = False
    """Whether the swing unit is an eighth, as in jazz, rather than a sixteenth."""
    human_seconds: float = 0.0
    """Standard deviation of the timing of notes."""
    fill: str = "snare"
    """snare, toms, hats, none"""
    intro: frozenset[str] = field(default_factory=lambda: frozenset({"chords", "pad", "texture"}))
    """The parts that play in the intro: chords, pad, bass, lead, texture, or the sound of a drum."""
    crash: bool = True
    duck: float = 0.0
    """Depth of the side-chain: 0.7 leaves 30 % of the level under a kick."""
    echo_beats: float = 0.0
    reverb_seconds: float = 1.2
    reverb_gain: float = 0.5
    texture: str | None = None
    """vinyl, air"""
    texture_gain: float = 0.0
    lead_alternates: tuple[str, ...] = ()
    """Sounds of which the seed selects the one for the lead."""
    chord_alternates: tuple[str, ...] = ()
    gain: float = 1.0
    """The gain that brings the mix to about -15 LUFS."""
