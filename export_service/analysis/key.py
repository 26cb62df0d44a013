"""Key, from how well a chroma fits the pitch classes' usual shares in each of the 24 keys."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export_service.analysis.features import BINS_PER_SEMITONE, Series

# From the tonic up: how often each pitch class is written (Albrecht and Shanahan 2013), and how well listeners say that
# it fits (Krumhansl and Kessler 1982).
WRITTEN_MAJOR = (0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081)
WRITTEN_MINOR = (0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052)
RATED_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
RATED_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
WRITTEN_WEIGHT = 2.0
"""Against the ratings' 1. The ratings alone mistake fifths, what is written alone takes power chords for minor."""
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
    fit, name = max(
        (float(uneven @ np.roll(profile, tonic)), f"{names[tonic]} {mode}")
        for profile, names, mode in ((MAJOR, MAJOR_NAMES, "major"), (MINOR, MINOR_NAMES, "minor"))
        for tonic in range(12)
    )
    confidence = fit / max(contrast, FULL_CONTRAST)
    return Key(name, confidence) if confidence >= LEAST_CONFIDENCE else None


def _profile(written: tuple[float, ...], rated: tuple[float, ...]) -> Series:
    return _unit(WRITTEN_WEIGHT * _unit(np.array(written)) + _unit(np.array(rated)))


def _unit(shares: Series) -> Series:
    uneven = shares - shares.mean()
    return np.asarray(uneven / np.linalg.norm(uneven))


MAJOR, MINOR = _profile(WRITTEN_MAJOR, RATED_MAJOR), _profile(WRITTEN_MINOR, RATED_MINOR)
