"""Makes the decisions that hold for the whole piece, from a parsed prompt and a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

from generation_service.models.sketch.composition.genres import DEFAULT_GENRE, STYLES
from generation_service.models.sketch.composition.harmony import Loop, build_loop
from generation_service.models.sketch.composition.instrumentation import assign_instruments
from generation_service.models.sketch.composition.music_theory import Key, build_key
from generation_service.models.sketch.composition.prompt_parser import ParsedPrompt
from generation_service.models.sketch.composition.style import Drum, Part, Style

# Chords with the same function, which the seed exchanges. In minor only for chords that belong less to the relative
# major, so that the key stays clear.
_SUBSTITUTES: Final = {
    "bVI": "iv", "bVII": "v", "bVImaj7": "iv7", "bVII7": "v7", "IV": "ii", "ii": "IV", "IVmaj7": "ii7",
    "ii7": "IVmaj7", "ii9": "IVmaj7", "IVmaj9": "ii9", "iii": "vi", "iii7": "vi7",
}  # fmt: skip
_SUBSTITUTION_CHANCE: Final = 0.3
_LONGEST_VARIED: Final = 8
"""Longer loops, such as twelve bars of blues, are known by their chords."""
_REGISTERS: Final = (-3, -2, 0, 0, 2, 3)
"""By how many semitones the seed moves the range of the accompaniment, for other inversions."""
_BORROWED_LEVEL: Final = 0.32
"""The level of drums in music that was not written for drums."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that stays the same from the first bar to the last."""

    style: Style
    bpm: float
    key: Key
    loops: Mapping[str, Loop]
    """The chord loop of each material: A for verses, B for choruses, C for breaks."""
    chords: Part | None
    bass: Part | None
    lead: Part | None
    pad: Part | None
    figure: Part | None
    drums: tuple[Drum, ...]
    instruments: tuple[str, ...]
    """The instruments, for display."""
    brightness: float
    """-1 dark … 1 bright; shifts the register of the lead."""
    drive: float
    """-1 calm … 1 energetic; shifts the energy of every section."""
    space: float
    """Factor for the reverb level."""

    def part(self, role: str) -> Part | None:
        """The part of a role: chords, pad, figure, bass or lead."""
        part: Part | None = getattr(self, role)
        return part


def build_plan(parsed: ParsedPrompt, random: np.random.Generator) -> Plan:
    """Decides what the prompt leaves open. The order of the random draws must not change, or seeds change meaning."""
    style = STYLES[parsed.genre or DEFAULT_GENRE]
    bpm = _choose_tempo(parsed, style, random)
    key = _choose_key(parsed, style, random)
    loops = _choose_loops(style, key, random)
    parts = assign_instruments(parsed, style, random)
    register = _REGISTERS[int(random.integers(len(_REGISTERS)))]
    for role in ("chords", "pad", "figure"):
        part = parts[role]
        if part is not None and part.pattern != "power":
            parts[role] = replace(part, low=part.low + register)
    drums = style.drums if _has_drums(parsed) else ()
    if drums == () and "drums" in parsed.instruments and "drums" not in parsed.excluded:
        borrowed = STYLES[DEFAULT_GENRE].drums
        drums = tuple(replace(drum, gain=_BORROWED_LEVEL * drum.gain) for drum in borrowed)
    sounds = dict.fromkeys(part.sound for part in parts.values() if part is not None)
    return Plan(
        style=style,
        bpm=bpm,
        key=key,
        loops=loops,
        **parts,
        drums=drums,
        instruments=(("drums",) if drums else ()) + tuple(sounds),
        brightness=_balance(parsed, {"happy", "dreamy"}, {"dark", "sad"}),
        drive=_balance(parsed, {"energetic", "epic"}, {"chill", "dreamy", "sad"}),
        space=1.5 if parsed.moods & {"dreamy", "epic"} else 1.0,
    )


def _choose_tempo(parsed: ParsedPrompt, style: Style, random: np.random.Generator) -> float:
    low, high = style.bpm
    drawn = float(random.integers(low, high + 1))
    if parsed.bpm is not None:
        return parsed.bpm
    if parsed.pace < 0:
        return float(round(low * 0.9))
    if parsed.pace > 0:
        return float(round(high * 1.08))
    # Moods shift the tempo to one side of the genre's range, but not beyond it.
    lean = _balance(parsed, {"energetic", "happy", "epic"}, {"chill", "sad", "dreamy"})
    return float(round(drawn + lean * 0.3 * ((high if lean > 0 else -low) - lean * drawn)))


def _choose_key(parsed: ParsedPrompt, style: Style, random: np.random.Generator) -> Key:
    tonic, drawn = int(random.integers(12)), float(random.random())
    minor = parsed.minor if parsed.minor is not None else drawn < style.minor_share
    if parsed.tonic is None:
        return build_key(tonic, minor=minor)
    return build_key(parsed.tonic, minor=minor, spelling=parsed.tonic_spelling)


def _choose_loops(style: Style, key: Key, random: np.random.Generator) -> dict[str, Loop]:
    """A different loop for verse and chorus, and for the break one that is neither, if the genre has so many."""
    numerals = style.minor_loops if key.minor else style.major_loops
    order = [numerals[int(index)] for index in random.permutation(len(numerals))]
    chosen = [order[0]] * 3 if style.one_loop else [order[number % len(order)] for number in range(3)]
    return {material: build_loop(loop, key, style.chord_bars) for material, loop in zip("ABC", chosen, strict=True)}


def _varied(loop: tuple[str, ...], random: np.random.Generator) -> tuple[str, ...]:
    """The loop with some chords replaced by others of the same function."""
    drawn = random.random(len(loop))
    varied = tuple(
        _SUBSTITUTES.get(entry, entry) if chance < _SUBSTITUTION_CHANCE else entry
        for entry, chance in zip(loop, drawn, strict=True)
    )
    return varied if any(a != b for a, b in pairwise(varied)) else loop


def _has_drums(parsed: ParsedPrompt) -> bool:
    if "drums" in parsed.excluded:
        return False
    return "drums" in parsed.instruments or not parsed.is_solo


def _balance(parsed: ParsedPrompt, up: set[str], down: set[str]) -> float:
    return float(bool(parsed.moods & up)) - float(bool(parsed.moods & down))
