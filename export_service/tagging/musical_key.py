"""Musical keys as musicians write them."""

from __future__ import annotations

import re

KEY = re.compile(r"([A-G])(#|b|)(?: (major|minor)|(m|))", re.ASCII)
NATURALS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
ACCIDENTALS = {"#": 1, "b": -1, "": 0}


def tonic_pitch_class(key: str) -> int | None:
    """Returns the pitch class of the tonic, from 0 for C to 11 for B; None if it is not a major or minor key, such as
    "E dorian".
    """
    match = KEY.fullmatch(key)
    return (NATURALS[match[1]] + ACCIDENTALS[match[2]]) % 12 if match else None


def abbreviate_key(key: str) -> str:
    """Returns the key as ID3's TKEY and Vorbis' INITIALKEY spell it, such as "Bbm" for "Bb minor"; empty if it is not a
    major or minor key.
    """
    match = KEY.fullmatch(key)
    return f"{match[1]}{match[2]}{'m' if match[3] == 'minor' or match[4] else ''}" if match else ""
