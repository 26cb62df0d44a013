"""Keys as musicians write them."""

from __future__ import annotations

import re

KEY = re.compile(r"([A-G])(#|b|)(?: (major|minor)|(m|))", re.ASCII)
NATURALS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
ACCIDENTALS = {"#": 1, "b": -1, "": 0}


def pitch_class(key: str) -> int | None:
    """Of the tonic, 0 for C to 11 for B; None for what is no key, such as "E dorian"."""
    found = KEY.fullmatch(key)
    return (NATURALS[found[1]] + ACCIDENTALS[found[2]]) % 12 if found else None


def short_key(key: str) -> str:
    """As ID3's TKEY and Vorbis' INITIALKEY have it, e.g. "Bbm" for "Bb minor"; empty for what is no key."""
    found = KEY.fullmatch(key)
    return f"{found[1]}{found[2]}{'m' if found[3] == 'minor' or found[4] else ''}" if found else ""
