"""All that is measured of a signal while it arrives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export_service.dsp.envelope import SEGMENT_FRAMES, Envelope
from export_service.dsp.loudness import Loudness, LoudnessMeter, Samples
from export_service.dsp.true_peak import TruePeakMeter, interpolator, oversampling


@dataclass(frozen=True)
class Measured:
    """Figures of a whole signal."""

    loudness: Loudness
    true_peak_dbtp: float | None
    """None for digital silence."""
    sample_peak_dbfs: float | None
    """None for digital silence. Can lie above the true peak, which is that of the band that is heard."""
    rms_dbfs: float | None
    """Root mean square of all samples, a full-scale sine being -3.01; None for digital silence."""
    seconds: float

    @property
    def peak_db(self) -> float | None:
        """What has to stay under a ceiling."""
        if self.true_peak_dbtp is None or self.sample_peak_dbfs is None:
            return None
        return max(self.true_peak_dbtp, self.sample_peak_dbfs)

    @property
    def peak_to_loudness_lu(self) -> float | None:
        """Dynamic range as peak-to-loudness ratio (PLR, AES TD1004)."""
        if self.true_peak_dbtp is None or self.loudness.integrated_lufs is None:
            return None
        return self.true_peak_dbtp - self.loudness.integrated_lufs

    def moved(self, gain_db: float) -> Measured:
        """After a gain."""

        def moved(figure: float | None) -> float | None:
            return None if figure is None else figure + gain_db

        return Measured(
            Loudness(
                integrated_lufs=moved(self.loudness.integrated_lufs),
                max_momentary_lufs=moved(self.loudness.max_momentary_lufs),
                max_short_term_lufs=moved(self.loudness.max_short_term_lufs),
                range_lu=self.loudness.range_lu,
            ),
            moved(self.true_peak_dbtp),
            moved(self.sample_peak_dbfs),
            moved(self.rms_dbfs),
            self.seconds,
        )


class Measurement:
    """Takes in a signal in pieces of any size.

    The meters are fed segments of one size whatever the pieces were: the last bit of a sum depends on how it was cut,
    and the same audio has to give the same gain and so the same file.
    """

    def __init__(self, sample_rate_hz: int, channels: int, folder: Path | None = None) -> None:
        self.sample_rate_hz, self.channels = sample_rate_hz, channels
        self.loudness = LoudnessMeter(sample_rate_hz, channels)
        self.envelope = None if folder is None else Envelope(folder, sample_rate_hz)
        """What a limiter needs, in a file in the folder given."""
        self._true_peak = TruePeakMeter(channels, interpolator(oversampling(sample_rate_hz)))
        self._segment = np.empty((SEGMENT_FRAMES, channels), dtype=np.float32)
        self._filled = 0
        self._frames = 0
        self._energy = 0.0

    def feed(self, samples: Samples) -> None:
        """Takes in the next frames: [frames, channels], finite. Raises OSError where the disk refuses the envelope."""
        self._frames += len(samples)
        while len(samples):
            taken = samples[: SEGMENT_FRAMES - self._filled]
            self._segment[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            samples = samples[len(taken) :]
            if self._filled == SEGMENT_FRAMES:
                self._measure_segment()

    def finish(self) -> Measured:
        """The figures of all that was taken in; nothing may be fed after."""
        if self._filled:
            self._measure_segment()
        true_peak = self._true_peak.peak_dbtp()
        rms_dbfs = 10.0 * math.log10(self._energy / (self._frames * self.channels)) if self._energy else None
        return Measured(
            self.loudness.measure(),
            true_peak,
            self._true_peak.sample_peak_dbfs(),
            rms_dbfs,
            self._frames / self.sample_rate_hz,
        )

    def close(self) -> None:
        """Gives the envelope's disk space back."""
        if self.envelope is not None:
            self.envelope.close()

    def _measure_segment(self) -> None:
        segment = self._segment[: self._filled]
        exact = segment.astype(np.float64)
        power = self.loudness.feed(exact)
        self._true_peak.feed(segment)
        self._energy += float(np.einsum("nc,nc->", exact, exact))
        if self.envelope is not None:
            self.envelope.append(segment, power)
        self._filled = 0
