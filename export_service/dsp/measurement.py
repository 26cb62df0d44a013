"""Everything that is measured of a signal while it arrives: loudness, peaks, RMS, and the envelope for a limiter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export_service.dsp.arrays import Samples
from export_service.dsp.envelope import Envelope
from export_service.dsp.loudness import Loudness, LoudnessMeter
from export_service.dsp.segments import (
    HISTORY_ROWS,
    REACH_ROWS,
    ROW_FRAMES,
    RowMatrix,
    SegmentBuffer,
    max_over_channels,
    max_over_reach,
)
from export_service.dsp.true_peak import (
    TruePeakMeter,
    build_annex2_example_interpolator,
    build_interpolator,
    oversampling_factor,
)

MAX_EXACT_PEAK = 1e6
"""Louder segments are scaled down, because the squares of absurdly large samples overflow float32."""


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
        """Complete after `finish`."""
        self.envelope = None if folder is None else Envelope(folder, sample_rate_hz, channels)
        """What a limiter needs, in a temporary file in `folder`; None if no folder was given."""
        self._buffer, self._matrix = SegmentBuffer(channels), RowMatrix(channels)
        self._interpolator = build_interpolator(oversampling_factor(sample_rate_hz))
        self._true_peak = TruePeakMeter(self._interpolator)
        self._sample_peak = 0.0
        self._energy = 0.0
        self._frames = 0

    def feed(self, samples: Samples) -> None:
        """Adds the next frames: [frames, channels], finite. Raises OSError if the envelope can't be written."""
        while len(samples):
            samples = self._buffer.fill(samples)
            if self._buffer.is_full:
                self._measure_segment()

    def finish(self) -> LoudnessMeasurement:
        """Returns the figures of everything that was fed. `feed` must not be called afterwards."""
        if self._buffer.frames:
            self._measure_segment()
        self._buffer.fill_with_silence()
        self._measure_peaks()
        del self._buffer, self._matrix  # The memory is needed for a limiter and its meter.
        rms_dbfs = 10.0 * math.log10(self._energy / (self._frames * self.channels)) if self._energy else None
        return LoudnessMeasurement(
            self.loudness.measure(),
            to_decibels(self._true_peak.peak),
            to_decibels(self._sample_peak),
            rms_dbfs,
            self._frames / self.sample_rate_hz,
        )

    def close(self) -> None:
        """Frees the disk space of the envelope."""
        if self.envelope is not None:
            self.envelope.close()

    def _measure_segment(self) -> None:
        frames = self._buffer.frames
        row_peaks = max_over_channels(self._measure_peaks()[HISTORY_ROWS:])
        peak = float(row_peaks.max())
        self._sample_peak = max(self._sample_peak, peak)
        segment, scale = self._matrix.segment, 1.0
        if peak > MAX_EXACT_PEAK:
            scale = MAX_EXACT_PEAK / peak
            segment = segment * np.float32(scale)
        lines = segment[:ROW_FRAMES]
        self._energy += float(np.einsum("lc,lc->c", lines, lines).sum(dtype=np.float64)) / scale**2
        energies = self.loudness.feed(segment, frames, scale)
        if self.envelope is not None:
            curvatures = max_over_channels(self._matrix.curvatures()[HISTORY_ROWS:])
            self.envelope.append(row_peaks, curvatures, energies, frames)
        self._frames += frames
        self._buffer.advance()

    def _measure_peaks(self) -> Samples:
        """Returns the peaks of the rows: [HISTORY_ROWS + rows, channels]."""
        self._matrix.load(self._buffer.segment)
        row_peaks = self._matrix.peaks()
        self._feed_true_peak(row_peaks)
        return row_peaks

    def _feed_true_peak(self, row_peaks: Samples) -> None:
        self._true_peak.feed(self._buffer, self._matrix, row_peaks)


class LimitedSignalMeter(SignalMeter):
    """Measures a limited signal, of which much is known: where it was not limited, no true peak is of interest that the
    limiter knows to be low enough.
    """

    def __init__(self, sample_rate_hz: int, channels: int) -> None:
        super().__init__(sample_rate_hz, channels)
        self._simple_meter = TruePeakMeter(build_annex2_example_interpolator())
        self._limits = np.full(HISTORY_ROWS, np.inf, dtype=np.float32)
        """Of the rows before the segment and, until it is measured, of its own."""

    def feed_segment(self, segment: Samples, limits: Samples) -> None:
        """Adds the next segment of SEGMENT_FRAMES; only the last one may be shorter. `limits` [rows] says what the true
        peaks of its rows do not exceed as long as no row that they depend on has the limit inf.
        """
        self._limits = np.concatenate([self._limits, limits])
        self.feed(segment)

    def highest_peak_db(self) -> float | None:
        """Returns the highest peak that any meter would read, after `finish`; None for digital silence."""
        return to_decibels(max(self._sample_peak, self._true_peak.peak, self._simple_meter.peak))

    def _feed_true_peak(self, row_peaks: Samples) -> None:
        limits = None  # Nothing is known of the silence after the end.
        if len(self._limits) > HISTORY_ROWS:
            limits = self._limits[REACH_ROWS:-REACH_ROWS].copy()
            limits[np.isinf(max_over_reach(self._limits))] = np.inf
            self._limits = self._limits[-HISTORY_ROWS:]
        for meter in (self._true_peak, self._simple_meter):
            meter.feed(self._buffer, self._matrix, row_peaks, limits)


def to_decibels(amplitude: float) -> float | None:
    """Returns an amplitude in dB relative to 1; None for 0."""
    return 20.0 * math.log10(amplitude) if amplitude else None
