"""Estimates the key from how well a chroma fits the typical distribution of pitch classes in each of the 24 keys."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export_service.analysis.features import BINS_PER_SEMITONE
from export_service.dsp.arrays import FloatArray

# Upwards from the tonic: how often each pitch class occurs in scores (Albrecht and Shanahan 2013), and how well it fits
# according to listeners (Krumhansl and Kessler 1982).
SCORE_MAJOR = (0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081)
SCORE_MINOR = (0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052)
RATING_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
RATING_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
SCORE_WEIGHT = 2.0
"""Relative to a weight of 1 for the ratings. The ratings alone confuse keys a fifth apart; scores alone take power
chords for minor."""
MAJOR_NAMES = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
MINOR_NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B")
"""Of two spellings, the one with fewer accidentals."""
FULL_CONTRAST = 0.3
"""The contrast of the chroma of music: the norm of its deviation from the mean, relative to its norm. Noise and drums
stay below 0.2."""
MIN_CONFIDENCE = 0.65
"""A single tone and unpitched sounds stay below this."""


@dataclass(frozen=True)
class Key:
    """A key: tonic and mode."""

    name: str
    """For example "A minor"."""
    confidence: float
    """0 to 1: the correlation of the chroma with the profile of the key, reduced if all pitch classes are about equally
    strong."""


def estimate_key(chroma: FloatArray) -> Key | None:
    """Estimates the key from a chroma as in `Features` [36]; None if no key fits."""
    if not chroma.any():
        return None
    strength = (chroma / chroma.max()).reshape(12, BINS_PER_SEMITONE).sum(axis=1)
    strength /= np.linalg.norm(strength)
    deviation = strength - strength.mean()
    contrast = float(np.linalg.norm(deviation))
    fit, name = max(
        (float(deviation @ np.roll(profile, tonic)), f"{names[tonic]} {mode}")
        for profile, names, mode in ((MAJOR, MAJOR_NAMES, "major"), (MINOR, MINOR_NAMES, "minor"))
        for tonic in range(12)
    )
    confidence = fit / max(contrast, FULL_CONTRAST)
    return Key(name, confidence) if confidence >= MIN_CONFIDENCE else None


def _profile(score: tuple[float, ...], rating: tuple[float, ...]) -> FloatArray:
    return _unit_deviation(SCORE_WEIGHT * _unit_deviation(np.array(score)) + _unit_deviation(np.array(rating)))


def _unit_deviation(shares: FloatArray) -> FloatArray:
    deviation = shares - shares.mean()
    return np.asarray(deviation / np.linalg.norm(deviation))


MAJOR, MINOR = _profile(SCORE_MAJOR, RATING_MAJOR), _profile(SCORE_MINOR, RATING_MINOR)
