"""Reduces a signal while it arrives: the mean of its channels at a low sample rate, in blocks of one size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache

import numpy as np

from export_service.dsp.arrays import Samples

MIN_REDUCED_RATE_HZ = 10_000
"""The sample rate is divided by an integer, but stays above this: nothing above 5 kHz is needed."""
ROW = 16
"""Output samples of the decimator per row of its matrix product."""
MAX_PRODUCT_SIZE = 1 << 18
"""Multiplications per matrix product; above this OpenBLAS uses threads, which stall on a busy machine."""
OVERLAP = 2048
"""Samples at the reduced rate before a block that belong to its first spectra."""
BLOCK = 12 * OVERLAP
"""Samples at the reduced rate that are processed together: about two seconds."""
PIECE = BLOCK // 3
"""Samples that the decimator returns together."""
MAX_AMPLITUDE = 1e6
"""Relative to full scale. The power of absurdly loud samples would overflow float32."""


class ReducedSignal(ABC):
    """Takes a signal in pieces of any size, and has its reduced signal processed.

    It works on blocks of one size whatever the size of the pieces, so that the same audio gives bit-identical results.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self._sample_rate_hz = sample_rate_hz
        self._factor = max(1, sample_rate_hz // MIN_REDUCED_RATE_HZ)
        self._reduced_rate = sample_rate_hz / self._factor
        history = ROW * self._factor
        self._mono = np.zeros(history + PIECE * self._factor, dtype=np.float32)
        self._filled = self._history = history
        self._low = np.zeros(OVERLAP + BLOCK, dtype=np.float32)
        self._low_filled = OVERLAP
        self._frames = 0

    def feed(self, samples: Samples) -> None:
        """Adds the next frames: [frames, channels], finite."""
        self._frames += len(samples)
        while len(samples):
            part = samples[: len(self._mono) - self._filled]
            mono = self._mono[self._filled : self._filled + len(part)]
            # Halved before they are added, which could overflow. For mono, this adds the channel to itself.
            np.multiply(part[:, 0], 0.5, out=mono)
            mono += 0.5 * part[:, -1]
            np.clip(mono, -MAX_AMPLITUDE, MAX_AMPLITUDE, out=mono)
            self._filled += len(part)
            samples = samples[len(part) :]
            if self._filled == len(self._mono):
                self._process_piece()

    def _process_rest(self) -> None:
        """Processes what has been fed and does not fill a block, followed by silence."""
        while self._filled > self._history or self._low_filled > OVERLAP:
            self._mono[self._filled :] = 0.0
            self._process_piece()

    def _process_piece(self) -> None:
        self._low[self._low_filled : self._low_filled + PIECE] = _decimate(self._mono, self._factor)
        self._mono[: self._history] = self._mono[len(self._mono) - self._history :]
        self._filled = self._history
        self._low_filled += PIECE
        if self._low_filled == len(self._low):
            self._process_block(self._low)
            self._low[:OVERLAP] = self._low[BLOCK:]
            self._low_filled = OVERLAP

    @abstractmethod
    def _process_block(self, low: Samples) -> None:
        """Processes the next block, which follows the last samples of the block before: [OVERLAP + BLOCK]."""


def _decimate(signal: Samples, factor: int) -> Samples:
    """Returns every `factor`-th sample of the signal after low-pass filtering to half the new rate: [PIECE]. The signal
    starts with ROW * factor earlier samples.
    """
    if factor == 1:
        return signal[ROW:]
    earlier, current = _decimator(factor)
    rows = signal.reshape(-1, ROW * factor)
    rows_per_product = 1 << (MAX_PRODUCT_SIZE // earlier.size).bit_length() - 1
    batches = (
        rows[:-1].reshape(-1, rows_per_product, ROW * factor),
        rows[1:].reshape(-1, rows_per_product, ROW * factor),
    )
    return (batches[0] @ earlier + batches[1] @ current).ravel()


@cache
def _decimator(factor: int) -> tuple[Samples, Samples]:
    """Returns a Kaiser-windowed sinc as two matrices [ROW * factor, ROW] that compute ROW samples at once: from the row
    before and from the row itself.
    """
    taps = 16 * factor + 1
    n = np.arange(taps) - (taps - 1) / 2
    prototype = np.sinc(0.9 * n / factor) * np.kaiser(taps, 5.0)
    matrix = np.zeros((2 * ROW * factor, ROW), dtype=np.float32)
    for column in range(ROW):
        end = (ROW + 1 + column) * factor
        matrix[end - taps : end, column] = prototype / prototype.sum()
    return matrix[: ROW * factor], matrix[ROW * factor :]
