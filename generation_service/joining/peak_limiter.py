"""Limits the peaks of new music, so that the music it is joined to need not be turned down with it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from generation_service.models.base import FloatArray

CEILING = 10 ** (-1 / 20)
"""-1 dBTP, the ceiling of files unless configured otherwise."""
LOOK_AHEAD_SECONDS = 0.003
"""How long before a peak the gain starts to fall, and how long after it it recovers."""
OVERSAMPLING = 4
"""True peaks are measured at this multiple of the sample rate (ITU-R BS.1770-5, annex 2)."""
EDGE_FRAMES = 16
"""Frames at either end of a block whose oversampled peaks are not exact yet."""


class PeakLimiter:
    """A look-ahead limiter for music that arrives in blocks. Music below the ceiling passes unchanged, to the bit.

    The gain is the least that any peak nearby needs, averaged over the look-ahead: it has no steps, and is low enough
    at each peak. It is 1 at both ends, where the music goes on outside of the limiter.
    """

    def __init__(self, channels: int, sample_rate_hz: int) -> None:
        self._reach = max(1, round(LOOK_AHEAD_SECONDS * sample_rate_hz))
        self._context = 2 * self._reach + EDGE_FRAMES
        """How far the gain of a frame depends on the frames around it."""
        self._buffer: FloatArray = np.zeros((0, channels), np.float32)
        self._history = 0
        """Frames of the buffer that were returned."""
        self._is_first = True

    def feed(self, samples: FloatArray) -> FloatArray:
        """Adds music, [n, channels]. Returns what is ready."""
        self._buffer = np.concatenate([self._buffer, samples])
        return self._limit(max(self._history, len(self._buffer) - self._context), is_last=False)

    def finish(self) -> FloatArray:
        """Returns the rest."""
        return self._limit(len(self._buffer), is_last=True)

    def _limit(self, end: int, *, is_last: bool) -> FloatArray:
        """Returns the frames of the buffer from the history to `end`."""
        first = self._history
        if end == first:
            return self._buffer[:0]
        limited = self._buffer[first:end]
        reduction = self._reduction(is_last=is_last)[first:end]
        if reduction.any():
            limited = limited * (1.0 - reduction[:, np.newaxis]).astype(np.float32)
        kept_from = max(0, end - self._context)
        self._buffer, self._history = self._buffer[kept_from:], end - kept_from
        self._is_first = self._is_first and kept_from == 0
        return limited

    def _reduction(self, *, is_last: bool) -> npt.NDArray[np.float64]:
        """1 - gain for each frame of the buffer."""
        excess = 1.0 - np.minimum(1.0, CEILING / np.maximum(self._true_peaks(), 1e-9))
        if not excess.any():
            return excess
        if self._is_first:
            excess[: self._reach] = 0.0
        if is_last:
            excess[-self._reach :] = 0.0
        from scipy.ndimage import maximum_filter1d

        held = maximum_filter1d(excess, 2 * self._reach + 1, mode="constant")
        smooth = np.convolve(held, np.full(2 * self._reach + 1, 1.0 / (2 * self._reach + 1)), mode="same")
        if self._is_first:
            smooth[: self._reach] *= np.linspace(0.0, 1.0, self._reach)[: len(smooth)]
        if is_last:
            smooth[-self._reach :] *= np.linspace(1.0, 0.0, self._reach)[-len(smooth) :]
        return smooth

    def _true_peaks(self) -> npt.NDArray[np.float64]:
        """The largest magnitude of any channel from half a frame before each frame to half a frame after it."""
        if np.abs(self._buffer).max(initial=0.0) < CEILING / 2:  # No true peak of music is 6 dB above its samples.
            return np.zeros(len(self._buffer))
        from scipy.signal import resample_poly

        dense = np.abs(resample_poly(self._buffer, OVERSAMPLING, 1)).max(axis=1)
        around = np.concatenate([dense[OVERSAMPLING // 2 :], np.zeros(OVERSAMPLING // 2)])
        both = np.maximum(dense, around).reshape(-1, OVERSAMPLING).max(axis=1)
        before = np.concatenate([[0.0], dense[OVERSAMPLING // 2 :: OVERSAMPLING][: len(both) - 1]])
        return np.asarray(np.maximum(both, before), np.float64)
