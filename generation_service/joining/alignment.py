"""Finds where two pieces of music fit together in time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from generation_service.models.base import FloatArray

HOP_SECONDS = 0.005
"""The resolution of onsets; below that, the waveforms decide."""
WINDOW_HOPS = 8
"""The length of the window whose level is taken at each hop: long enough for low tones."""


def find_offset(music: FloatArray, reference: FloatArray, sample_rate_hz: int) -> int:
    """Returns the offset in frames at which `music` is most like `reference`: 0 to len(music) - len(reference).

    First the onsets are compared, so that beats meet, and around their best offset the waveforms. [n, channels] each.
    """
    hop = max(1, round(HOP_SECONDS * sample_rate_hz))
    last = len(music) - len(reference)
    if len(reference) < hop:
        return 0
    onsets, expected = _onsets(music, hop), _onsets(reference, hop)
    if last <= 0 or not expected.any():
        return 0
    coarse = hop * int(np.argmax(_correlate(onsets, expected)))
    first = max(0, min(last, coarse) - 2 * hop)
    window = music[first : min(last, coarse + 2 * hop) + len(reference)].mean(axis=1)
    pattern = reference.mean(axis=1)
    energies = _correlate(np.square(window), np.ones_like(pattern))
    return first + int(np.argmax(_correlate(window, pattern) / np.sqrt(np.maximum(energies, 1e-9))))


def _onsets(samples: FloatArray, hop: int) -> npt.NDArray[np.float32]:
    """By how much the level of the signal's differences rises from hop to hop, [n // hop]: drums stand out in it."""
    sharp = np.diff(samples.mean(axis=1), prepend=np.float32(0))
    energies = np.square(sharp[: len(sharp) // hop * hop]).reshape(-1, hop).mean(axis=1)
    window = np.ones(WINDOW_HOPS) / WINDOW_HOPS
    level = np.sqrt(np.convolve(energies, window)[: len(energies)])
    return np.asarray(np.maximum(0.0, np.diff(level, prepend=0.0)), np.float32)


def _correlate(signal: npt.NDArray[np.float32], pattern: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The inner products of the pattern with the signal from each place on, [len(signal) - len(pattern) + 1]."""
    from scipy.signal import correlate

    return np.asarray(correlate(signal, pattern, mode="valid"), np.float32)
