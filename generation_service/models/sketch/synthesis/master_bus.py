"""The master bus: a gentle compressor, followed by a soft clipper for the remaining peaks.

Both are gains that are computed from the sum of the stems and applied to each of them, so that the stems still add up
to the mix.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from generation_service.models.base import FloatArray

CEILING: Final = 0.84
"""The largest magnitude of an output sample."""

_KNEE: Final = 0.56
_WINDOW_FRAMES: Final = 256
_THRESHOLD: Final = 0.16
_RATIO: Final = 2.5
_ATTACK_SECONDS: Final = 0.03
_RELEASE_SECONDS: Final = 0.35
_OFFSET_SECONDS: Final = 0.1
_RAMP: Final = np.arange(1, _WINDOW_FRAMES + 1, dtype=np.float32)


class MasterBus:
    """Limits the peak-to-loudness ratio, whatever mix of parts a prompt asks for."""

    def __init__(self, rate_hz: int, gain: float, stems: int) -> None:
        window = _WINDOW_FRAMES / rate_hz
        self._gain = gain
        self._attack = 1.0 - math.exp(-window / _ATTACK_SECONDS)
        self._release = 1.0 - math.exp(-window / _RELEASE_SECONDS)
        self._offset_speed = 1.0 - math.exp(-window / _OFFSET_SECONDS)
        self._offset = np.zeros((stems, 2), np.float64)
        self._power = 0.0
        self._level = 1.0

    def process(self, stems: FloatArray) -> None:
        """Processes [stems, 2, n] samples in place, n a multiple of 256. Every sample of the sum is within ±CEILING."""
        stems *= np.float32(self._gain)
        windows = stems.reshape(*stems.shape[:2], -1, _WINDOW_FRAMES)
        self._remove_offset(windows)
        mix = stems.sum(axis=0)
        gain = self._compression(mix)
        mix *= gain
        stems *= gain
        if (clip := clip_gain(mix)) is not None:
            stems *= clip

    def _compression(self, mix: FloatArray) -> FloatArray:
        """The gain of the compressor, [n], for a mix of [2, n]."""
        windows = mix.reshape(2, -1, _WINDOW_FRAMES)
        powers = np.einsum("cwf,cwf->w", windows, windows) / (2 * _WINDOW_FRAMES)
        levels = [self._level]
        for power in powers.tolist():
            speed = self._attack if power > self._power else self._release
            self._power += speed * (power - self._power)
            excess = math.sqrt(self._power) / _THRESHOLD
            levels.append(excess ** (1.0 / _RATIO - 1.0) if excess > 1.0 else 1.0)
        self._level = levels[-1]
        # The gain is interpolated linearly between windows, because a step would click.
        start = np.asarray(levels[:-1], np.float32)
        slope = np.diff(np.asarray(levels, np.float32)) / np.float32(_WINDOW_FRAMES)
        gain: FloatArray = (start[:, None] + slope[:, None] * _RAMP).reshape(-1)
        return gain

    def _remove_offset(self, windows: FloatArray) -> None:
        """A high-pass at 1.6 Hz: saturated asymmetric waves have a DC offset, which costs headroom."""
        offsets = [self._offset]
        for mean in np.moveaxis(np.mean(windows, axis=3), 2, 0):
            offsets.append(offsets[-1] + self._offset_speed * (mean - offsets[-1]))
        self._offset = offsets[-1]
        path = np.moveaxis(np.asarray(offsets, np.float32), 0, 2)
        slope = np.diff(path, axis=2) / np.float32(_WINDOW_FRAMES)
        windows -= path[..., :-1, None] + slope[..., None] * _RAMP


def clip_gain(mix: FloatArray) -> FloatArray | None:
    """The gain that bends each sample above the knee along a smooth curve that never exceeds the ceiling; None if there
    is no such sample. The shape is that of `mix`."""
    size = np.abs(mix)
    loud = size > _KNEE
    if not loud.any():
        return None
    gain = np.ones_like(mix)
    peaks = size[loud]
    room = np.float32(CEILING - _KNEE)
    gain[loud] = (np.float32(_KNEE) + room * np.tanh((peaks - np.float32(_KNEE)) / room)) / peaks
    return gain
