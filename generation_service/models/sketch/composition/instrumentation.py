"""Who plays what: the instruments of the genre, or those that the prompt names."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from generation_service.models.sketch.composition.prompt_parser import ParsedPrompt
from generation_service.models.sketch.composition.style import Part, Style
from generation_service.models.sketch.pads import PADS

Parts = dict[str, Part | None]

# The parts that a named instrument can take, in order of preference.
_ROLES: Final[dict[str, tuple[str, ...]]] = {
    "piano": ("chords", "lead"),
    "epiano": ("chords", "lead"),
    "guitar": ("chords", "lead"),
    "distorted guitar": ("chords", "lead"),
    "clav": ("chords", "lead"),
    "banjo": ("chords", "lead"),
    "organ": ("chords", "lead", "pad"),
    "harp": ("chords", "lead"),
    "strings": ("pad", "chords", "lead"),
    "choir": ("pad", "chords"),
    "pad": ("pad", "chords"),
    "bells": ("lead",),
    "vibraphone": ("lead", "chords"),
    "marimba": ("lead", "chords"),
    "kalimba": ("lead", "chords"),
    "flute": ("lead",),
    "sax": ("lead",),
    "trumpet": ("lead",),
    "fiddle": ("lead",),
    "brass": ("lead", "chords"),
    "synth": ("lead", "chords"),
    "808": ("bass",),
    "bass": ("bass",),
}
_LEAD_ONLY: Final = frozenset({"flute", "bells", "brass", "sax", "trumpet", "fiddle"})
_PLAY_BASS: Final = frozenset(
    {"piano", "guitar", "harp", "organ", "strings", "epiano", "vibraphone", "marimba", "clav"}
)
"""What has a low register for a bass line."""
_HELD: Final = ("X...............",)
_ABOVE_PADS: Final = ("X.....x.....x...", "X.........x.....", "X...x.....x.....")
_DEFAULT_PAD: Final = Part("pad", 0.15, 55, send=0.25)
_LEAD_REGISTERS: Final = {
    "flute": 67, "bells": 69, "harp": 60, "brass": 57, "synth": 60, "piano": 62, "vibraphone": 62, "marimba": 60,
    "fiddle": 62, "sax": 57, "trumpet": 60,
}  # fmt: skip
"""The lowest MIDI pitch of a melody for the instrument."""
_CHORD_SOUNDS: Final = {"synth": "stab", "brass": "synth brass"}
"""The sound of an instrument that has a different sound for chords than for the lead."""
_GUITARS: Final = (
    "guitar",
    "clean guitar",
    "nylon guitar",
    "steel guitar",
    "distorted guitar",
    "muted guitar",
    "lead guitar",
)
_GUITAR_RHYTHMS: Final = ("X...x.xx..x.x.x.", "X.....x.X...x.x.", "X..x..x...x.x...")

# Sustained sounds are made quieter than plucked ones, for roughly equal loudness.
_SUSTAINED: Final = frozenset({
    "pad", "warm pad", "strings", "choir", "organ", "brass", "distorted guitar", "lead guitar", "flute", "supersaw",
    "synth brass", "sax", "trumpet", "fiddle",
})  # fmt: skip
_SUSTAINED_LEVEL: Final = 0.75
_NAMED_LEVEL: Final = 1.15
_ALWAYS: Final = -1.0
"""The energy threshold of a part that plays in every section."""


def assign_instruments(parsed: ParsedPrompt, style: Style, random: np.random.Generator) -> Parts:
    """Assigns an instrument to each part: the genre's own, unless the prompt names others."""
    roles = ("chords", "bass", "lead", "pad", "figure")
    parts: Parts = {role: _choose_alternate(getattr(style, role), random) for role in roles}
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


def _choose_alternate(part: Part | None, random: np.random.Generator) -> Part | None:
    """One of the sounds of a part. It draws a number even if there is no choice, so that seeds keep their meaning."""
    drawn = float(random.random())
    if part is None or not part.alternates:
        return part
    return _with_sound(part, part.alternates[int(drawn * len(part.alternates))])


def _with_sound(part: Part, sound: str) -> Part:
    if sound == part.sound:
        return part
    level = _SUSTAINED_LEVEL if sound in _SUSTAINED else 1.0
    level /= _SUSTAINED_LEVEL if part.sound in _SUSTAINED else 1.0
    return replace(part, sound=sound, gain=part.gain * level)


def _assign_instrument(role: str, name: str, style: Style) -> Part:
    if role == "bass":
        keeps_sound = name == "bass" and style.bass.sound != "808"
        return style.bass if keeps_sound else replace(style.bass, sound="808" if name == "808" else "bass")
    part = style.pad or _DEFAULT_PAD if role == "pad" else getattr(style, role)
    if name == "distorted guitar" and role == "lead":
        name = "lead guitar"
    if role == "chords":
        name = _CHORD_SOUNDS.get(name, name)
    if name == "guitar" and part.sound in _GUITARS:
        return part  # In rock, a guitar is a distorted guitar, and in bossa nova a nylon guitar.
    # A named instrument should be clearly audible.
    named = _with_sound(part, name)
    if role == "lead":
        named = replace(named, low=max(named.low, _LEAD_REGISTERS.get(name, 0)))
    if role == "chords":
        named = _suited(named, name, part)
    return replace(named, gain=named.gain * _NAMED_LEVEL, energy=_ALWAYS)


def _suited(named: Part, name: str, part: Part) -> Part:
    """The part with a rhythm and a technique that its new instrument can play."""
    if (name in PADS or name == "organ") and part.sound not in PADS:
        return replace(named, rhythms=_HELD, gate=1.0, pattern="block", voicing="open")
    if name == "guitar" and part.pattern == "block" and part.sound not in PADS:
        return replace(named, rhythms=_GUITAR_RHYTHMS, pattern="strum", gate=0.95)
    if part.pattern in ("power", "strum") and name not in _GUITARS and name != "banjo":
        return replace(named, pattern="block", voicing="close", low=max(named.low, 52))
    return named


def _reduce_to_solo(parts: Parts, taken: dict[str, str], style: Style) -> None:
    """Keeps only the named instruments. If possible, one of them also plays the melody and the bass line."""
    named = taken.get("chords") or taken.get("pad") or taken.get("lead")
    for role in parts:
        if role not in taken:
            parts[role] = None
    if named is None:
        return
    if parts["chords"] is None and named not in _LEAD_ONLY:
        parts["chords"] = _assign_instrument("chords", named, style)
    if parts["lead"] is None:
        parts["lead"] = _assign_instrument("lead", named, style)
    if parts["bass"] is None and named in _PLAY_BASS:
        parts["bass"] = replace(style.bass, sound=named, gain=0.4, low=36, send=0.2)
