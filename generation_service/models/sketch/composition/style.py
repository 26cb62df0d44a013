"""What makes a genre: the shape of the data in ``genres.py``.

Rhythms are strings of sixteenths, one character each, 16 to a bar; longer strings span several bars.
``X`` accent, ``x`` plain, ``o`` soft, ``r`` a roll of three within the sixteenth, ``.`` rest, and in
chord and bass rhythms ``-`` holds the note before (where there is none, it rings to the next).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

VELOCITIES: Final = {"X": 1.0, "x": 0.78, "o": 0.4, "r": 0.7}

Rhythms = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drum:
    """One voice of the kit. ``rhythms`` are alternatives, of which a section takes one."""

    sound: str
    rhythms: Rhythms
    gain: float
    pan: float = 0.0
    energy: float = 0.3
    """Plays in sections of at least this energy (0 … 1)."""
    send: float = 0.06


@dataclass(frozen=True, slots=True)
class Part:
    """A pitched part: what plays it, how, and where it sits in the mix."""

    sound: str
    gain: float
    low: int
    """The lowest MIDI pitch of its range."""
    rhythms: Rhythms = ("X...............",)
    send: float = 0.2
    pan: float = 0.0
    gate: float = 1.0
    """Share of the time to the next hit that a note is held."""
    energy: float = 0.0
    ducked: bool = True


@dataclass(frozen=True, slots=True)
class Style:
    """A genre's conventions. Times in seconds unless named otherwise."""

    name: str
    bpm: tuple[int, int]
    minor_share: float
    """Probability of a minor key where the prompt leaves it open."""
    minor_loops: tuple[tuple[str, ...], ...]
    """Chord loops in Roman numerals, one bar a chord (see ``chord_bars``)."""
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
    """How late every second unit comes, as a share of the unit: 0.33 is a triplet."""
    swing_eighths: bool = False
    """Swing in eighths (jazz) rather than in sixteenths."""
    human_seconds: float = 0.0
    """Standard deviation of a note's timing."""
    fill: str = "snare"
    """snare, toms, hats, none"""
    intro: frozenset[str] = field(default_factory=lambda: frozenset({"chords", "pad", "texture"}))
    """Parts of the intro: chords, pad, bass, lead, texture, or a drum's sound."""
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
    """Sounds that may take the place of the lead's, by the seed."""
    chord_alternates: tuple[str, ...] = ()
    gain: float = 1.0
    """Brings the mix to about -15 LUFS."""
