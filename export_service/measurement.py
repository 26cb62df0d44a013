"""All that is measured of a signal while it arrives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export_service.loudness import Loudness, LoudnessMeter, Samples
from export_service.true_peak import TruePeakMeter

FRAMES_AT_ONCE = 32_768
"""About a second of 32 kHz."""


@dataclass(frozen=True)
class Measured:
    """Figures of a whole signal."""

    loudness: Loudness
    true_peak_dbtp: float | None
    """None for digital silence."""
    seconds: float


class Measurement:
    """Takes in a signal in pieces of any size.

    The meters are fed blocks of one size whatever the pieces were: the last bit of a sum depends on how it was cut, and
    the same audio has to give the same gain and so the same file.
    """

    def __init__(self, sample_rate_hz: int, channels: int) -> None:
        self._rate = sample_rate_hz
        self._loudness = LoudnessMeter(sample_rate_hz, channels)
        self._true_peak = TruePeakMeter(sample_rate_hz, channels)
        self._block = np.empty((FRAMES_AT_ONCE, channels), dtype=np.float32)
        self._filled = 0
        self._frames = 0

    def feed(self, samples: Samples) -> None:
        """Takes in the next frames: [frames, channels], finite."""
        self._frames += len(samples)
        while len(samples):
            taken = samples[: FRAMES_AT_ONCE - self._filled]
            self._block[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            samples = samples[len(taken) :]
            if self._filled == FRAMES_AT_ONCE:
                self._measure_block()

    def finish(self) -> Measured:
        """The figures of all that was taken in; nothing may be fed after."""
        self._measure_block()
        return Measured(self._loudness.measure(), self._true_peak.peak_dbtp(), self._frames / self._rate)

    def _measure_block(self) -> None:
        block = self._block[: self._filled]
        self._loudness.feed(block)
        self._true_peak.feed(block)
        self._filled = 0
