"""Key, from how well a chroma fits the pitch classes' usual shares in each of the 24 keys."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export_service.features import BINS_PER_SEMITONE, Series

MAJOR = (0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081)
MINOR = (0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052)
"""Shares of the pitch classes from the tonic up, counted in scores (Albrecht and Shanahan 2013)."""
MAJOR_NAMES = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
MINOR_NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B")
"""Of two spellings the one with fewer accidentals."""
FULL_CONTRAST = 0.3
"""How uneven music's chroma is: its deviation from the mean over its length. Noise and drums stay below 0.2."""
LEAST_CONFIDENCE = 0.65
"""A single tone and what has no pitch stay below."""


@dataclass(frozen=True)
class Key:
    """Tonic and mode."""

    name: str
    """For example "A minor"."""
    confidence: float
    """0 to 1: the chroma's correlation with the key's profile, less where all pitch classes are about as strong."""


def key(chroma: Series) -> Key | None:
    """Of a chroma as `Features` has it; None where no key fits."""
    strength = chroma.reshape(12, BINS_PER_SEMITONE).sum(axis=1)
    if not strength.any():
        return None
    strength /= np.linalg.norm(strength)
    uneven = strength - strength.mean()
    contrast = float(np.linalg.norm(uneven))
    if not contrast:  # Every pitch class alike.
        return None
    fit, name = max(
        (float(uneven @ np.roll(profile, tonic)) / contrast, f"{names[tonic]} {mode}")
        for profile, names, mode in ((_UNEVEN_MAJOR, MAJOR_NAMES, "major"), (_UNEVEN_MINOR, MINOR_NAMES, "minor"))
        for tonic in range(12)
    )
    confidence = fit * min(1.0, contrast / FULL_CONTRAST)
    return Key(name, confidence) if confidence >= LEAST_CONFIDENCE else None


def _unit(profile: tuple[float, ...]) -> Series:
    uneven = np.array(profile) - np.mean(profile)
    return np.asarray(uneven / np.linalg.norm(uneven))


_UNEVEN_MAJOR, _UNEVEN_MINOR = _unit(MAJOR), _unit(MINOR)
