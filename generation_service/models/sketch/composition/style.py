"""The conventions that define a genre: the types of the data in `genres`.

A rhythm is a string with one character per sixteenth, 16 per bar; longer strings span several bars. `X` is an accent,
`x` a normal hit, `o` a soft one, `g` a ghost note, `m` a muted one, `r` a roll of three within the sixteenth, `d` one
of two, and `.` a rest. The notes of pitched rhythms last until the next hit; `_` ends one earlier.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

VELOCITIES: Final = {"X": 1.0, "x": 0.78, "o": 0.5, "g": 0.24, "m": 0.62, "r": 0.66, "d": 0.66}
ARTICULATIONS: Final = {"g": "ghost", "m": "mute"}
ROLLS: Final = {"r": 3, "d": 2}
"""How many hits within a sixteenth."""

Rhythms = tuple[str, ...]
Loops = tuple[tuple[str, ...], ...]


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
    late_ms: float = 0.0
    """How far behind the beat it is played; negative pushes."""


@dataclass(frozen=True, slots=True)
class Part:
    """A pitched part: its sound, its rhythm, how it plays a chord, and its place in the mix."""

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
    pattern: str = "block"
    """Chords: block, strum, roll, power, or an arpeggio: up, wave, alberti, travis, banjo. Bass: follow (the rhythm of
    the chords), and those of `bass_part`."""
    voicing: str = "close"
    """close, open (drop 2), rootless, triad (at most three tones)."""
    alternates: tuple[str, ...] = ()
    """Sounds of which the seed selects one."""
    echo: float = 0.0
    """Share sent to the delay in time with the beat."""


@dataclass(frozen=True, slots=True)
class Style:
    """The conventions of a genre. Times are in seconds unless their name says otherwise."""

    name: str
    bpm: tuple[int, int]
    minor_share: float
    """Probability of a minor key if the prompt does not say."""
    minor_loops: Loops
    """Chord loops in Roman numerals. Each entry lasts `chord_bars` bars; two chords in one entry share it."""
    major_loops: Loops
    chords: Part
    bass: Part
    lead: Part
    cells: Rhythms
    """Bars of melodic rhythm, from which the seed makes motifs."""
    pad: Part | None = None
    figure: Part | None = None
    """A second accompaniment: an arpeggio, a riff, or a rhythm guitar."""
    drums: tuple[Drum, ...] = ()
    form: str = "song"
    """song, beat, club, head, arc; see `form`."""
    passing: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    """In minor and in major: the chords of which the seed may put one into the second half of an entry of a loop."""
    chord_bars: int = 1
    one_loop: bool = False
    """Whether all sections share one chord loop."""
    scale: str = "diatonic"
    """What the melody is made of: diatonic, pentatonic, blues, harmonic."""
    lead_energy: float = 0.5
    """The lead plays in sections of at least this energy."""
    lead_hold: int = 8
    """The longest note of the melody, in sixteenths."""
    solo: bool = False
    """Whether a long piece has a solo."""
    swing: float = 0.0
    """Delay of every second unit, as a share of the unit: 0.33 gives triplets."""
    swing_eighths: bool = False
    """Whether the swing unit is an eighth, as in jazz, rather than a sixteenth."""
    human_seconds: float = 0.0
    """Standard deviation of the timing of notes."""
    fill: str = "snare"
    """snare, toms, hats, breaks, brushes, timbales, stop, none"""
    risers: bool = False
    """Whether noise rises before a drop, and an impact marks it."""
    intro: frozenset[str] = field(default_factory=lambda: frozenset({"chords", "pad", "figure"}))
    """The parts that play in the intro: chords, pad, figure, bass, lead, or the sound of a drum."""
    breakdown: frozenset[str] = field(default_factory=lambda: frozenset({"chords", "pad", "lead"}))
    """The parts that play in a break."""
    crash: str = "crash"
    """The cymbal that opens a section; empty for none."""
    cadence: tuple[str, str] = ("V", "V")
    """The chord before the last one, in minor and in major."""
    close_colour: str = ""
    """What the last chord adds to its triad."""
    ring_seconds: float = 1.5
    """How long the last chord rings."""
    duck: float = 0.0
    """Depth of the side-chain: 0.7 leaves 30 % of the level under a kick."""
    echo_beats: float = 0.0
    """The delay of the echo."""
    reverb_seconds: float = 1.2
    reverb_gain: float = 0.5
    texture: str | None = None
    """vinyl, air"""
    texture_gain: float = 0.0
    gain: float = 1.0
    """The gain that brings the mix to about -16 LUFS."""
