"""Everything that is measured of a signal while it arrives: loudness, peaks, RMS, and the envelope for a limiter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export_service.dsp.arrays import Samples
from export_service.dsp.envelope import SEGMENT_FRAMES, Envelope
from export_service.dsp.loudness import Loudness, LoudnessMeter
from export_service.dsp.true_peak import TruePeakMeter, build_interpolator, oversampling_factor


@dataclass(frozen=True)
class LoudnessMeasurement:
    """The measured figures of a whole signal."""

    loudness: Loudness
    true_peak_dbtp: float | None
    """None for digital silence."""
    sample_peak_dbfs: float | None
    """None for digital silence. It can exceed the true peak, which covers the audible band only (see `true_peak`)."""
    rms_dbfs: float | None
    """The root mean square of all samples; a full-scale sine has -3.01. None for digital silence."""
    seconds: float

    @property
    def peak_db(self) -> float | None:
        """The peak that has to stay below a ceiling: the higher of true peak and sample peak."""
        if self.true_peak_dbtp is None or self.sample_peak_dbfs is None:
            return None
        return max(self.true_peak_dbtp, self.sample_peak_dbfs)

    @property
    def peak_to_loudness_lu(self) -> float | None:
        """The peak-to-loudness ratio (PLR, AES TD1004)."""
        if self.true_peak_dbtp is None or self.loudness.integrated_lufs is None:
            return None
        return self.true_peak_dbtp - self.loudness.integrated_lufs

    def with_gain(self, gain_db: float) -> LoudnessMeasurement:
        """Returns the figures that the signal has after a gain."""

        def add_gain(figure: float | None) -> float | None:
            return None if figure is None else figure + gain_db

        return LoudnessMeasurement(
            Loudness(
                integrated_lufs=add_gain(self.loudness.integrated_lufs),
                max_momentary_lufs=add_gain(self.loudness.max_momentary_lufs),
                max_short_term_lufs=add_gain(self.loudness.max_short_term_lufs),
                range_lu=self.loudness.range_lu,
            ),
            add_gain(self.true_peak_dbtp),
            add_gain(self.sample_peak_dbfs),
            add_gain(self.rms_dbfs),
            self.seconds,
        )


class SignalMeter:
    """Measures a signal fed in pieces of any size.

    Whatever the size of the pieces, the meters get segments of one size. The last bit of a sum depends on how it is
    split, and the same audio has to give the same gain and therefore the same file.
    """

    def __init__(self, sample_rate_hz: int, channels: int, folder: Path | None = None) -> None:
        self.sample_rate_hz, self.channels = sample_rate_hz, channels
        self.loudness = LoudnessMeter(sample_rate_hz, channels)
        self.envelope = None if folder is None else Envelope(folder, sample_rate_hz)
        """What a limiter needs, in a temporary file in `folder`; None if no folder was given."""
        self._true_peak = TruePeakMeter(channels, build_interpolator(oversampling_factor(sample_rate_hz)))
        self._segment = np.empty((SEGMENT_FRAMES, channels), dtype=np.float32)
        self._filled = 0
        self._frames = 0
        self._energy = 0.0

    def feed(self, samples: Samples) -> None:
        """Adds the next frames: [frames, channels], finite. Raises OSError if the envelope can't be written."""
        self._frames += len(samples)
        while len(samples):
            part = samples[: SEGMENT_FRAMES - self._filled]
            self._segment[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            samples = samples[len(part) :]
            if self._filled == SEGMENT_FRAMES:
                self._measure_segment()

    def finish(self) -> LoudnessMeasurement:
        """Returns the figures of everything that was fed. `feed` must not be called afterwards."""
        if self._filled:
            self._measure_segment()
        true_peak = self._true_peak.peak_dbtp()
        rms_dbfs = 10.0 * math.log10(self._energy / (self._frames * self.channels)) if self._energy else None
        return LoudnessMeasurement(
            self.loudness.measure(),
            true_peak,
            self._true_peak.sample_peak_dbfs(),
            rms_dbfs,
            self._frames / self.sample_rate_hz,
        )

    def close(self) -> None:
        """Frees the disk space of the envelope."""
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
