"""A spectrogram computed while the audio streams; its memory depends on the picture, not on the length of the audio."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

WINDOW_FRAMES, HOP_FRAMES = 2048, 1024
"""Hann windows with 50 % overlap."""
MAX_COLUMNS = 1200
ROWS = 240
MIN_HZ = 40.0

Samples = npt.NDArray[np.float32]
"""[frames, channels], full scale ±1.0."""


class Spectrogram:
    """Accepts `frames` frames in blocks of any size. Frames at the end that do not fill a window are ignored."""

    def __init__(self, sample_rate_hz: int, channels: int, frames: int) -> None:
        self._rate = sample_rate_hz
        self._windows = max(1, 1 + (frames - WINDOW_FRAMES) // HOP_FRAMES)
        self.columns = min(MAX_COLUMNS, self._windows)
        self._power = np.zeros((self.columns, WINDOW_FRAMES // 2 + 1))
        self._counts = np.zeros(self.columns)
        self._remainder = np.empty((0, channels), dtype=np.float32)
        self._window = 0

    def feed(self, samples: Samples) -> None:
        """Processes the next frames."""
        pending = np.concatenate([self._remainder, samples])
        count = max(0, 1 + (len(pending) - WINDOW_FRAMES) // HOP_FRAMES)
        if count:
            views = np.lib.stride_tricks.sliding_window_view(pending, WINDOW_FRAMES, axis=0)[::HOP_FRAMES][:count]
            spectra = np.fft.rfft(views * self._hann, axis=2)  # [windows, channels, bins]
            power = (spectra.real**2 + spectra.imag**2).mean(axis=1)
            columns = np.arange(self._window, self._window + count) * self.columns // self._windows
            columns = np.minimum(columns, self.columns - 1)
            np.add.at(self._power, columns, power)
            np.add.at(self._counts, columns, 1)
            self._window += count
        self._remainder = pending[count * HOP_FRAMES :]

    def decibels(self) -> npt.NDArray[np.float64]:
        """Returns [rows, columns] in dB, lowest frequency first; a full-scale sine is 0 dB, digital silence -inf."""
        # The peak of a sine in the spectrum of a window is its amplitude times half the sum of the window.
        reference = (self._hann.sum() / 2) ** 2
        mean = self._power / np.maximum(self._counts, 1)[:, None] / reference
        edges = self.row_frequencies(np.arange(ROWS + 1)) * WINDOW_FRAMES / self._rate
        first = np.minimum(np.rint(edges[:-1]).astype(int), mean.shape[1] - 1)
        last = np.minimum(np.maximum(np.rint(edges[1:]).astype(int), first + 1), mean.shape[1])
        rows = np.stack([mean[:, low:high].max(axis=1) for low, high in zip(first, last, strict=True)])
        with np.errstate(divide="ignore"):
            return np.asarray(10.0 * np.log10(rows))

    def row_frequencies(self, rows: npt.NDArray[np.int_]) -> npt.NDArray[np.float64]:
        """Returns the lower edge of each row in Hz: logarithmically spaced, up to the Nyquist frequency."""
        return np.asarray(MIN_HZ * (self._rate / 2 / MIN_HZ) ** (rows / ROWS))

    def row_at(self, frequency_hz: float) -> float:
        """Returns the (fractional) row of a frequency."""
        return float(ROWS * np.log(frequency_hz / MIN_HZ) / np.log(self._rate / 2 / MIN_HZ))

    @cached_property
    def _hann(self) -> npt.NDArray[np.float32]:
        return np.hanning(WINDOW_FRAMES + 1)[:-1].astype(np.float32)
