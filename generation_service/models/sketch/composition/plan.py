"""Makes the decisions that hold for the whole piece, from a parsed prompt and a seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from generation_service.models.sketch.composition.genres import DEFAULT_GENRE, STYLES
from generation_service.models.sketch.composition.music_theory import Chord, Key, build_key, parse_chord
from generation_service.models.sketch.composition.prompt_parser import ParsedPrompt
from generation_service.models.sketch.composition.style import Drum, Part, Style
from generation_service.models.sketch.pads import PADS

# The parts that a named instrument can take, in order of preference.
_ROLES: Final[dict[str, tuple[str, ...]]] = {
    "piano": ("chords", "lead"),
    "epiano": ("chords", "lead"),
    "guitar": ("chords", "lead"),
    "distorted guitar": ("chords", "lead"),
    "organ": ("chords", "lead", "pad"),
    "harp": ("chords", "lead"),
    "strings": ("pad", "chords", "lead"),
    "choir": ("pad", "chords"),
    "pad": ("pad", "chords"),
    "bells": ("lead",),
    "flute": ("lead",),
    "brass": ("lead", "chords"),
    "synth": ("lead", "chords"),
    "808": ("bass",),
    "bass": ("bass",),
}
_HELD: Final = ("X...............",)
_ABOVE_PADS: Final = ("X.....x.....x...", "X.........x.....", "X...x.....x.....")
_DEFAULT_PAD: Final = Part("pad", 0.15, 55, send=0.25)
_LEAD_REGISTERS: Final = {"flute": 67, "bells": 69, "harp": 60, "brass": 57, "synth": 60, "piano": 62}
"""The lowest MIDI pitch of a melody for the instrument."""
_CHORD_SOUNDS: Final = {"synth": "stab"}
"""The sound of an instrument that has a different sound for chords than for the lead."""

# Sustained sounds are made quieter than plucked ones, for roughly equal loudness.
_SUSTAINED: Final = frozenset(
    {"pad", "warm pad", "strings", "choir", "organ", "brass", "distorted guitar", "lead guitar", "flute"}
)


@dataclass(frozen=True, slots=True)
class Plan:
    """All that stays the same from the first bar to the last."""

    style: Style
    bpm: float
    key: Key
    loop: tuple[Chord, ...]
    """The chords of the main loop, each of which lasts `style.chord_bars` bars."""
    chords: Part | None
    bass: Part | None
    lead: Part | None
    pad: Part | None
    drums: tuple[Drum, ...]
    instruments: tuple[str, ...]
    """The instruments, for display."""
    brightness: float
    """-1 dark … 1 bright; shifts the register of the lead."""
    drive: float
    """-1 calm … 1 energetic; shifts the energy of every section."""
    space: float
    """Factor for the reverb level."""


def build_plan(parsed: ParsedPrompt, random: np.random.Generator) -> Plan:
    """Decides what the prompt leaves open. The order of the random draws must not change, or seeds change meaning."""
    style = STYLES[parsed.genre or DEFAULT_GENRE]
    bpm = _choose_tempo(parsed, style, random)
    key = _choose_key(parsed, style, random)
    loops = style.minor_loops if key.minor else style.major_loops
    loop = tuple(parse_chord(numeral, key.tonic) for numeral in loops[random.integers(len(loops))])
    parts = _assign_instruments(parsed, style, random)
    drums = style.drums if _has_drums(parsed, style) else ()
    if drums == () and "drums" in parsed.instruments and "drums" not in parsed.excluded:
        # A borrowed kit is quieter, because the music was not written for drums.
        borrowed = STYLES[DEFAULT_GENRE].drums
        drums = tuple(replace(drum, gain=0.32 * drum.gain) for drum in borrowed)

    sounds = dict.fromkeys(part.sound for part in parts.values() if part is not None)
    return Plan(
        style=style,
        bpm=bpm,
        key=key,
        loop=loop,
        chords=parts["chords"],
        bass=parts["bass"],
        lead=parts["lead"],
        pad=parts["pad"],
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


def _has_drums(parsed: ParsedPrompt, style: Style) -> bool:
    if "drums" in parsed.excluded:
        return False
    return "drums" in parsed.instruments or not parsed.is_solo


def _assign_instruments(parsed: ParsedPrompt, style: Style, random: np.random.Generator) -> dict[str, Part | None]:
    """Assigns an instrument to each part: the genre's own, unless the prompt names others."""
    parts: dict[str, Part | None] = {
        "chords": _choose_alternate(style.chords, style.chord_alternates, random),
        "bass": style.bass,
        "lead": _choose_alternate(style.lead, style.lead_alternates, random),
        "pad": style.pad,
    }
    taken: dict[str, str] = {}
    for name in parsed.instruments:
        role = next((r for r in _ROLES.get(name, ()) if r not in taken), None)
        if role is not None:
            taken[role] = name
            parts[role] = _assign_instrument(role, name, style)
    chords = parts["chords"]
    if parsed.is_solo:
        _reduce_to_solo(parts, taken, style)
    elif chords and "chords" in taken and style.chords.sound in PADS and chords.sound not in PADS:
        # The named instrument plays over the pads that are typical of the genre.
        parts["chords"] = replace(chords, rhythms=_ABOVE_PADS, send=0.35)
        if "pad" not in taken:
            parts["pad"] = replace(style.chords, gain=0.9 * style.chords.gain)
    for role, part in parts.items():
        if part is not None and (role in parsed.excluded or _is_excluded(part.sound, parsed)):
            fallback = getattr(style, role) if role != "bass" and role not in parsed.excluded else None
            parts[role] = None if fallback and _is_excluded(fallback.sound, parsed) else fallback
    return parts


def _is_excluded(sound: str, parsed: ParsedPrompt) -> bool:
    return any(sound == name or sound.endswith(f" {name}") for name in parsed.excluded)


def _choose_alternate(part: Part, sounds: tuple[str, ...], random: np.random.Generator) -> Part:
    drawn = int(random.integers(max(1, len(sounds))))
    return _with_sound(part, sounds[drawn]) if sounds else part


def _with_sound(part: Part, sound: str) -> Part:
    if sound == part.sound:
        return part
    gain = part.gain * (0.75 if sound in _SUSTAINED else 1.0) / (0.75 if part.sound in _SUSTAINED else 1.0)
    return replace(part, sound=sound, gain=gain)


def _assign_instrument(role: str, name: str, style: Style) -> Part:
    if role == "bass":
        keeps_sound = name == "bass" and style.bass.sound != "808"
        return style.bass if keeps_sound else replace(style.bass, sound="808" if name == "808" else "bass")
    part = style.pad or _DEFAULT_PAD if role == "pad" else getattr(style, role)
    if name == "distorted guitar" and role == "lead":
        name = "lead guitar"
    if role == "chords":
        name = _CHORD_SOUNDS.get(name, name)
    if name == "guitar" and part.sound == "distorted guitar":
        return part  # In rock, a guitar is a distorted guitar.
    # A named instrument should be clearly audible.
    named = _with_sound(part, name)
    if role == "lead":
        named = replace(named, low=max(named.low, _LEAD_REGISTERS.get(name, 0)))
    if role == "chords" and (name in PADS or name == "organ") and part.sound not in PADS:
        named = replace(named, rhythms=_HELD, gate=1.0)
    return replace(named, gain=named.gain * 1.15, energy=0.0)


def _reduce_to_solo(parts: dict[str, Part | None], taken: dict[str, str], style: Style) -> None:
    """Keeps only the named instruments. If possible, one of them also plays the melody and the bass line."""
    named = taken.get("chords") or taken.get("pad") or taken.get("lead")
    for role in parts:
        if role not in taken:
            parts[role] = None
    if named is None:
        return
    if parts["chords"] is None and named not in ("flute", "bells", "brass"):
        parts["chords"] = _assign_instrument("chords", named, style)
    if parts["lead"] is None:
        parts["lead"] = _assign_instrument("lead", named, style)
    if parts["bass"] is None and named in ("piano", "guitar", "harp", "organ", "strings", "epiano"):
        parts["bass"] = replace(style.bass, sound=named, gain=0.4, low=36, send=0.2)


def _balance(parsed: ParsedPrompt, up: set[str], down: set[str]) -> float:
    return float(bool(parsed.moods & up)) - float(bool(parsed.moods & down))
