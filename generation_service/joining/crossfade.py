"""Crossfades of constant power, whatever the two signals have in common."""

from __future__ import annotations

import numpy as np

from generation_service.models.base import FloatArray

MAX_GAIN = 2.0
"""6 dB, the most by which `match_level` changes a level in either direction."""


def crossfade(first: FloatArray, second: FloatArray) -> FloatArray:
    """Passes from the first signal to the second: [n, channels] each → [n, channels].

    The gains are cos and sin, as of an equal-power crossfade, divided by what the correlation of the signals adds to
    their power: for equal signals their sum is 1, and for unrelated ones the sum of their squares. The first frame is
    the first signal's, and the frame after the last would be the second's.
    """
    angle = np.linspace(0.0, np.pi / 2, len(first), endpoint=False, dtype=np.float32)[:, np.newaxis]
    power = np.sqrt(1.0 + correlation(first, second) * np.sin(2.0 * angle))
    return np.asarray((np.cos(angle) * first + np.sin(angle) * second) / power, np.float32)


def correlation(first: FloatArray, second: FloatArray) -> float:
    """How much of two signals is the same, 0 to 1: their normalised inner product, and 0 if it is negative."""
    energy = float(np.sqrt(np.sum(np.square(first), dtype=np.float64) * np.sum(np.square(second), dtype=np.float64)))
    inner = float(np.sum(first.astype(np.float64) * second))
    return max(0.0, inner / energy) if energy else 0.0


def match_level(samples: FloatArray, reference: FloatArray) -> float:
    """Returns the gain at which `samples` has the RMS level of `reference`, within `MAX_GAIN`; 1 for silence."""
    level, wanted = (float(np.sqrt(np.mean(np.square(part), dtype=np.float64))) for part in (samples, reference))
    return min(MAX_GAIN, max(1.0 / MAX_GAIN, wanted / level)) if level and wanted else 1.0
