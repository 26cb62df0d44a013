"""Loudness and true peak over time, measured as a signal arrives, for drawing.

The figures are those of `SignalMeter`: the highest value of each curve is the figure of the whole signal.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np

from export_service.dsp.arrays import FloatArray, Samples
from export_service.dsp.loudness import HOPS_PER_SECOND, MOMENTARY_HOPS, SHORT_TERM_HOPS
from export_service.dsp.measurement import LoudnessMeasurement, SignalMeter
from export_service.dsp.segments import HISTORY_ROWS, REACH_ROWS, ROW_FRAMES, max_over_reach
from export_service.dsp.true_peak import ROWS_PER_BATCH

SECONDS_PER_HOP = 1.0 / HOPS_PER_SECOND
LOUDEST_FIRST = 3
"""How many rows of each 100 ms are measured before all others: they nearly always hold its peak."""


@dataclass(frozen=True)
class LoudnessCurve:
    """Three curves, each of which has one value per point."""

    seconds_per_point: float
    short_term_lufs: FloatArray
    """-inf for digital silence, as in the next one."""
    momentary_lufs: FloatArray
    true_peak: FloatArray
    """As a factor, 1 for full scale."""


class CurveMeter(SignalMeter):
    """Measures a signal like a `SignalMeter`, and also what each 100 ms has.

    Its memory grows by three numbers for each 100 ms.
    """

    def __init__(self, sample_rate_hz: int, channels: int) -> None:
        super().__init__(sample_rate_hz, channels)
        self._hop_peaks = array("d")
        self._rows = 0
        """Of the segments before, counted as whole rows."""

    def curve(self, measurement: LoudnessMeasurement, max_points: int) -> LoudnessCurve:
        """Returns the curves of everything that was fed, in at most `max_points` points, each of which is at least
        100 ms long. `measurement` is what `finish` has returned.

        A window is centred on the beginning of its 100 ms, and beyond both ends of the signal there is silence: then no
        window is louder than the loudest that lies within the signal. A point has the highest of the values in it. A
        true peak is of the point in which its row of 32 frames begins; one after the last frame is of the last point.
        """
        frames = round(measurement.seconds * self.sample_rate_hz)
        hops = max(1, -(-frames * HOPS_PER_SECOND // self.sample_rate_hz))
        peaks = np.zeros(hops)
        known = np.frombuffer(self._hop_peaks, dtype=np.float64) if self._hop_peaks else np.empty(0)
        peaks[: len(known)] = known[:hops]
        peaks[-1] = max(peaks[-1], *known[hops:], 0.0)
        hops_per_point = -(-hops // max_points)
        starts = np.arange(0, hops, hops_per_point)

        def reduce(series: FloatArray) -> FloatArray:
            complete = np.full(hops, -np.inf)
            complete[: len(series)] = series[:hops]
            return np.asarray(np.maximum.reduceat(complete, starts))

        return LoudnessCurve(
            hops_per_point * SECONDS_PER_HOP,
            reduce(self.loudness.centred(SHORT_TERM_HOPS)),
            reduce(self.loudness.centred(MOMENTARY_HOPS)),
            reduce(peaks),
        )

    def _feed_true_peak(self, row_peaks: Samples) -> None:
        rows = len(row_peaks) - HISTORY_ROWS
        # What is measured now begins REACH_ROWS before the segment, and ends as many before its end.
        first = self._rows - REACH_ROWS
        frames = np.maximum(np.arange(first, first + rows), 0) * ROW_FRAMES
        hops = ((frames + 1) * HOPS_PER_SECOND - 1) // self.sample_rate_hz
        missing = int(hops[-1]) + 1 - len(self._hop_peaks)
        self._hop_peaks.extend([0.0] * max(missing, 0))
        base = int(hops[0])
        peaks = np.frombuffer(self._hop_peaks, dtype=np.float64)[base:].copy()
        self._measure_rows(row_peaks, hops - base, peaks)
        self._hop_peaks[base:] = array("d", peaks)
        self._true_peak.peak = max(self._true_peak.peak, float(peaks.max()))
        self._rows += rows

    def _measure_rows(self, row_peaks: Samples, hops: np.ndarray, peaks: FloatArray) -> None:
        """Raises `peaks` [hops] to what the rows [rows] have, which are of `hops`."""
        interpolator, channels = self._interpolator, row_peaks.shape[1]
        bounds = max_over_reach(row_peaks) * np.float32(interpolator.max_gain)
        bounds = np.minimum(bounds, interpolator.bounds(row_peaks, self._matrix.curvatures())).ravel()
        of_hop = np.repeat(hops, channels)
        # In each hop, from the loudest row on, most rows can be skipped.
        order = np.lexsort((-bounds, of_hop))
        begins = np.searchsorted(of_hop[order], np.arange(len(peaks)))
        rank = np.arange(len(order)) - begins[of_hop[order]]
        loudest, others = order[rank < LOUDEST_FIRST], order[rank >= LOUDEST_FIRST]
        for rows in (loudest, others):
            rows = rows[bounds[rows] > peaks[of_hop[rows]]]
            for batch in np.split(rows, range(ROWS_PER_BATCH, len(rows), ROWS_PER_BATCH)):
                batch = batch[bounds[batch] > peaks[of_hop[batch]]]
                if not len(batch):
                    continue
                surroundings = self._buffer.surroundings[np.divmod(batch, channels)]
                measured = interpolator.peaks(surroundings, float(peaks[of_hop[batch]].min()))
                np.maximum.at(peaks, of_hop[batch], measured)
