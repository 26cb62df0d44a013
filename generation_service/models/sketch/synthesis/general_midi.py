"""Names of General MIDI: the number of each instrument, and the place of each drum in its drum map."""

from __future__ import annotations

from typing import Final

PROGRAMS: Final[dict[str, int]] = {
    "piano": 0, "epiano": 4, "clav": 7, "bells": 14, "vibraphone": 11, "marimba": 12, "kalimba": 108,
    "organ": 16, "guitar": 24, "nylon guitar": 24, "steel guitar": 25, "clean guitar": 27, "muted guitar": 28,
    "distorted guitar": 30, "lead guitar": 29, "banjo": 105, "fiddle": 110, "harp": 46,
    "upright bass": 32, "bass": 33, "pick bass": 34, "slap bass": 36, "synth bass": 38, "acid bass": 87,
    "saw bass": 38, "sub": 39, "soft bass": 39, "dub bass": 33, "808": 39, "reese": 39, "rumble": 39, "wobble": 87,
    "growl": 87, "strings": 48, "choir": 52, "brass": 61, "synth brass": 62, "trumpet": 56, "sax": 66, "flute": 73,
    "square lead": 80, "synth": 81, "supersaw": 81, "pluck": 84, "stab": 81, "pad": 89, "warm pad": 89,
}  # fmt: skip
"""Sound → program, from 0."""

_DRUM_KEYS: Final[dict[str, int]] = {
    "kick": 36, "snare": 38, "clap": 39, "snap": 39, "brush": 40, "rim": 37, "cross stick": 37, "hat": 42,
    "pedal hat": 44, "open hat": 46, "ride": 51, "crash": 49, "reverse crash": 55, "china": 52, "swell": 59,
    "tom high": 50, "tom mid": 47, "tom low": 43, "shaker": 70, "tambourine": 54, "cowbell": 56, "conga high": 63,
    "conga low": 64, "bongo": 60, "timbale": 65, "stomp": 35, "riser": 55, "impact": 57, "timpani": 41,
}  # fmt: skip
_DEFAULT_PROGRAM: Final = 0
_DEFAULT_DRUM: Final = 38


def program_of(sound: str) -> int:
    """General MIDI's number of an instrument, from 0."""
    return PROGRAMS.get(sound, _DEFAULT_PROGRAM)


def drum_key(sound: str) -> int:
    """The MIDI pitch of a drum. Kinds of one drum, such as "trap snare", have the same."""
    if sound in _DRUM_KEYS:
        return _DRUM_KEYS[sound]
    return _DRUM_KEYS.get(sound.rpartition(" ")[2], _DEFAULT_DRUM)
