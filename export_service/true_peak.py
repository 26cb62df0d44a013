"""True peak (ITU-R BS.1770-5, Annex 2): the peak of the waveform that samples stand for, measured as they arrive."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

TAPS = 24
"""Input samples that each oversampled one is made of."""
KAISER_BETA = 4.0
"""Flat within 0.05 dB up to 0.44 of the sample rate."""
OVERSAMPLED_HZ = 192_000
"""Annex 2 asks for at least this rate."""
ROW = 24
"""Input samples a row of the matrix product stands for: the fastest of 16 to 64 where measured."""
BLOCK_ROWS = 128
"""Rows a block that is skipped or interpolated as a whole: 96 ms at 32 kHz."""
BLOCK = ROW * BLOCK_ROWS


class TruePeakMeter:
    """Takes in a signal in pieces of any size; memory does not grow."""

    def __init__(self, sample_rate_hz: int, channels: int) -> None:
        self._matrix, self._largest_gain = _interpolator(oversampling(sample_rate_hz))
        self._tail = np.zeros((channels, TAPS - 1), dtype=np.float32)
        self._peak = 0.0

    def feed(self, samples: Samples) -> None:
        """Takes in the next frames: [frames, channels]."""
        signal = np.concatenate([self._tail, samples.T], axis=1)  # [channels, TAPS - 1 + frames]
        self._tail = signal[:, signal.shape[1] - (TAPS - 1) :]
        if len(samples):
            self._peak = max(self._peak, float(np.abs(samples).max()))
        rows = -(-len(samples) // ROW)
        padded = np.zeros((len(signal), TAPS - 1 + rows * ROW), dtype=np.float32)
        padded[:, : signal.shape[1]] = signal
        for channel in padded:
            self._interpolate(channel)

    def peak_dbtp(self) -> float | None:
        """The largest true peak of all channels so far in dBTP, the waveform's ring after its end included; None for
        digital silence.
        """
        self.feed(np.zeros((TAPS, len(self._tail)), dtype=np.float32))
        return 20.0 * math.log10(self._peak) if self._peak else None

    def _interpolate(self, signal: Samples) -> None:
        # Overlapping rows of one buffer, so that the product copies nothing: [rows, ROW + TAPS - 1].
        rows = np.lib.stride_tricks.sliding_window_view(signal, ROW + TAPS - 1)[::ROW]
        magnitudes = np.abs(signal)
        starts = range(0, len(rows), BLOCK_ROWS)
        peaks = [float(magnitudes[s * ROW : s * ROW + BLOCK + TAPS - 1].max()) for s in starts]
        # No interpolated sample can pass the samples' peak times the filter's gain: loudest first, most blocks are out.
        for peak, start in sorted(zip(peaks, starts, strict=True), reverse=True):
            if peak * self._largest_gain <= self._peak:
                break
            # Scaled to full scale first: float32 overflows in the sum where samples are absurdly large.
            between = (rows[start : start + BLOCK_ROWS] / np.float32(peak)) @ self._matrix
            self._peak = max(self._peak, peak * max(float(between.max()), -float(between.min())))


def oversampling(sample_rate_hz: int) -> int:
    """A power of two that reaches 192 kHz, and reads at most 0.17 dB low on any tone up to 22 kHz."""
    at_least = 8 if sample_rate_hz <= 48_000 else 4 if sample_rate_hz <= 96_000 else 2
    return max(
        at_least, 1 << math.ceil(math.log2(OVERSAMPLED_HZ / sample_rate_hz)) if sample_rate_hz < OVERSAMPLED_HZ else 1
    )


@cache
def _interpolator(factor: int) -> tuple[Samples, float]:
    """The polyphase filter as a matrix [ROW + TAPS - 1, ROW * (factor - 1)], and the largest gain of any phase.

    A Kaiser-windowed sinc has zeros at the input samples, so phase 0 is those samples and is left out.
    """
    centre = TAPS * factor // 2
    n = np.arange(2 * centre + 1)
    prototype = np.sinc((n - centre) / factor) * np.kaiser(len(n), KAISER_BETA)
    phases = np.stack([prototype[phase::factor][:TAPS] for phase in range(1, factor)])  # [factor - 1, TAPS]
    phases /= phases.sum(axis=1, keepdims=True)  # Each phase passes a constant unchanged.
    matrix = np.zeros((ROW + TAPS - 1, ROW, factor - 1), dtype=np.float32)
    for sample in range(ROW):
        matrix[sample : sample + TAPS, sample] = phases.T[::-1]
    return matrix.reshape(ROW + TAPS - 1, -1), float(np.abs(phases).sum(axis=1).max())
