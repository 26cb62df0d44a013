"""The master bus: a gentle compressor, followed by a soft clipper for the remaining peaks."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from generation_service.models.base import FloatArray

CEILING: Final = 0.89
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

    def __init__(self, rate_hz: int, gain: float) -> None:
        window = _WINDOW_FRAMES / rate_hz
        self._gain = gain
        self._attack = 1.0 - math.exp(-window / _ATTACK_SECONDS)
        self._release = 1.0 - math.exp(-window / _RELEASE_SECONDS)
        self._offset_speed = 1.0 - math.exp(-window / _OFFSET_SECONDS)
        self._offset = np.zeros(2, np.float64)
        self._power = 0.0
        self._level = 1.0

    def process(self, mix: FloatArray) -> FloatArray:
        """Processes [2, n] samples, n a multiple of 256. Every output sample is within ±CEILING."""
        mix *= np.float32(self._gain)
        windows = mix.reshape(2, -1, _WINDOW_FRAMES)
        self._remove_offset(windows)
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
        windows *= start[:, None] + slope[:, None] * _RAMP
        return soft_clip(windows.reshape(2, -1))

    def _remove_offset(self, windows: FloatArray) -> None:
        """A high-pass at 1.6 Hz: saturated asymmetric waves have a DC offset, which costs headroom."""
        offsets = [self._offset]
        for mean in np.mean(windows, axis=2).T:
            offsets.append(offsets[-1] + self._offset_speed * (mean - offsets[-1]))
        self._offset = offsets[-1]
        path = np.asarray(offsets, np.float32).T
        slope = np.diff(path, axis=1) / np.float32(_WINDOW_FRAMES)
        windows -= path[:, :-1, None] + slope[:, :, None] * _RAMP


def soft_clip(mix: FloatArray) -> FloatArray:
    """Linear up to the knee, then a smooth curve that never exceeds the ceiling. In place."""
    loud = np.abs(mix) > _KNEE
    if loud.any():
        peaks = mix[loud]
        room = np.float32(CEILING - _KNEE)
        bent = np.float32(_KNEE) + room * np.tanh((np.abs(peaks) - np.float32(_KNEE)) / room)
        mix[loud] = np.copysign(bent, peaks)
    return mix
