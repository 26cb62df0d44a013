"""From a brief and a seed to the decisions that hold for the whole piece."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from generation_service.models.sketch.composition.genres import DEFAULT_GENRE, STYLES
from generation_service.models.sketch.composition.music_theory import Chord, Key, build_key, parse_chord
from generation_service.models.sketch.composition.prompt_parser import Brief
from generation_service.models.sketch.composition.style import Drum, Part, Style
from generation_service.models.sketch.pads import PADS

# The part a named instrument takes, in order of preference.
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
"""The lowest pitch that a melody on this instrument is written for."""
_CHORD_FIT: Final = {"synth": "stab"}
"""An instrument's sound where it plays chords, if another than where it leads."""

# Roughly equal loudness: sustained sounds are turned down against plucked ones.
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
    """The chords of the main loop, one for each ``style.chord_bars`` bars."""
    chords: Part | None
    bass: Part | None
    lead: Part | None
    pad: Part | None
    drums: tuple[Drum, ...]
    instruments: tuple[str, ...]
    """What is heard, for people."""
    brightness: float
    """-1 dark … 1 bright: shifts the lead's register."""
    drive: float
    """-1 calm … 1 energetic: shifts every section's energy."""
    space: float
    """Factor on the reverb."""


def build_plan(brief: Brief, random: np.random.Generator) -> Plan:
    """Settle what the brief leaves open. The order of the draws is part of what a seed means."""
    style = STYLES[brief.genre or DEFAULT_GENRE]
    bpm = _tempo(brief, style, random)
    key = _key(brief, style, random)
    loops = style.minor_loops if key.minor else style.major_loops
    loop = tuple(parse_chord(numeral, key.tonic) for numeral in loops[random.integers(len(loops))])
    parts = _assign_instruments(brief, style, random)
    drums = style.drums if _has_drums(brief, style) else ()
    if drums == () and "drums" in brief.instruments and "drums" not in brief.excluded:
        # A borrowed kit stays behind music that was not written for one.
        borrowed = STYLES[DEFAULT_GENRE].drums
        drums = tuple(replace(drum, gain=0.32 * drum.gain) for drum in borrowed)

    heard = dict.fromkeys(part.sound for part in parts.values() if part is not None)
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
        instruments=(("drums",) if drums else ()) + tuple(heard),
        brightness=_balance(brief, {"happy", "dreamy"}, {"dark", "sad"}),
        drive=_balance(brief, {"energetic", "epic"}, {"chill", "dreamy", "sad"}),
        space=1.5 if brief.moods & {"dreamy", "epic"} else 1.0,
    )


def _tempo(brief: Brief, style: Style, random: np.random.Generator) -> float:
    low, high = style.bpm
    drawn = float(random.integers(low, high + 1))
    if brief.bpm is not None:
        return brief.bpm
    if brief.pace < 0:
        return float(round(low * 0.9))
    if brief.pace > 0:
        return float(round(high * 1.08))
    # Moods lean to one side of the genre's range and stay inside it.
    lean = _balance(brief, {"energetic", "happy", "epic"}, {"chill", "sad", "dreamy"})
    return float(round(drawn + lean * 0.3 * ((high if lean > 0 else -low) - lean * drawn)))


def _key(brief: Brief, style: Style, random: np.random.Generator) -> Key:
    tonic, chance = int(random.integers(12)), float(random.random())
    minor = brief.minor if brief.minor is not None else chance < style.minor_share
    if brief.tonic is None:
        return build_key(tonic, minor=minor)
    return build_key(brief.tonic, minor=minor, spelling=brief.tonic_spelling)


def _has_drums(brief: Brief, style: Style) -> bool:
    if "drums" in brief.excluded:
        return False
    return "drums" in brief.instruments or not brief.is_solo


def _assign_instruments(brief: Brief, style: Style, random: np.random.Generator) -> dict[str, Part | None]:
    """Who plays which part: the genre's players, with those that the prompt names in their places."""
    parts: dict[str, Part | None] = {
        "chords": _choose_alternate(style.chords, style.chord_alternates, random),
        "bass": style.bass,
        "lead": _choose_alternate(style.lead, style.lead_alternates, random),
        "pad": style.pad,
    }
    taken: dict[str, str] = {}
    for name in brief.instruments:
        role = next((r for r in _ROLES.get(name, ()) if r not in taken), None)
        if role is not None:
            taken[role] = name
            parts[role] = _assign_instrument(role, name, style)
    chords = parts["chords"]
    if brief.is_solo:
        _reduce_to_solo(parts, taken, style)
    elif chords and "chords" in taken and style.chords.sound in PADS and chords.sound not in PADS:
        # The named instrument plays above the bed of pads that the genre lives on.
        parts["chords"] = replace(chords, rhythms=_ABOVE_PADS, send=0.35)
        if "pad" not in taken:
            parts["pad"] = replace(style.chords, gain=0.9 * style.chords.gain)
    for role, part in parts.items():
        if part is not None and (role in brief.excluded or _is_excluded(part.sound, brief)):
            fallback = getattr(style, role) if role != "bass" and role not in brief.excluded else None
            parts[role] = None if fallback and _is_excluded(fallback.sound, brief) else fallback
    return parts


def _is_excluded(sound: str, brief: Brief) -> bool:
    return any(sound == name or sound.endswith(f" {name}") for name in brief.excluded)


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
        keep = name == "bass" and style.bass.sound != "808"
        return style.bass if keep else replace(style.bass, sound="808" if name == "808" else "bass")
    part = style.pad or _DEFAULT_PAD if role == "pad" else getattr(style, role)
    if name == "distorted guitar" and role == "lead":
        name = "lead guitar"
    if role == "chords":
        name = _CHORD_FIT.get(name, name)
    if name == "guitar" and part.sound == "distorted guitar":
        return part  # Rock's guitars are the distorted ones.
    # A named instrument is there to be heard.
    named = _with_sound(part, name)
    if role == "lead":
        named = replace(named, low=max(named.low, _LEAD_REGISTERS.get(name, 0)))
    if role == "chords" and (name in PADS or name == "organ") and part.sound not in PADS:
        named = replace(named, rhythms=_HELD, gate=1.0)
    return replace(named, gain=named.gain * 1.15, energy=0.0)


def _reduce_to_solo(parts: dict[str, Part | None], taken: dict[str, str], style: Style) -> None:
    """Only the named instruments; one that plays chords takes the melody and the bass line too."""
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


def _balance(brief: Brief, up: set[str], down: set[str]) -> float:
    return float(bool(brief.moods & up)) - float(bool(brief.moods & down))
