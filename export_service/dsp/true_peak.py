"""True peak (ITU-R BS.1770-5, Annex 2): the peak of the waveform that the samples represent, measured as they arrive.

The waveform covers the band that converters and resamplers pass, up to 0.457 of the sample rate. Content between that
and half the sample rate, such as the top of white noise, reaches no loudspeaker, so a true peak can be lower than a
sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from export_service.dsp.arrays import FloatArray, Samples
from export_service.dsp.segments import REACH_ROWS, ROW_FRAMES, RowMatrix, SegmentBuffer, max_over_reach

MIN_OVERSAMPLED_RATE_HZ = 192_000
"""Annex 2 requires at least this rate."""

# First to twice the rate with a sharp filter, then on with short ones: half the work of a single stage.
TAPS = 64
CUTOFF = 0.957
"""The -6 dB point of the sharp filter, relative to half the sample rate."""
KAISER_BETA = 3.0
SECOND_TAPS = 8
SECOND_KAISER_BETA = 4.0
EXAMPLE_TAPS, EXAMPLE_PHASES = 12, 4
"""The example filter of Annex 2."""
TILE = 16
"""Samples at twice the rate that the second stage works on at a time."""
MARGIN = SECOND_TAPS // 4
"""Input samples beyond both ends of a row that the first stage also doubles, for the second stage to reach."""
ROWS_PER_PRODUCT = 32
"""Small enough that OpenBLAS does not use threads, which double the CPU time and stall on a busy machine."""
PRODUCTS_PER_BATCH = 7
ROWS_PER_BATCH = ROWS_PER_PRODUCT * PRODUCTS_PER_BATCH


@dataclass(frozen=True)
class Interpolator:
    """Polyphase filters as matrices, to be multiplied from the left."""

    start: int
    """Where a row's window begins in its surroundings (see `SegmentBuffer`)."""
    first: Samples
    """[outputs, window]: the samples at twice the rate."""
    second: Samples
    """[TILE * (phases - 1), TILE + SECOND_TAPS - 1]: the samples between them."""
    max_gain: float
    """The largest ratio of a peak to the samples in its window."""
    second_stage_gain: float
    """The largest ratio of a peak to the samples at twice the rate."""
    curvature_gain: float
    """How far a peak can exceed the samples in its window, as a multiple of the largest second difference there."""

    def bounds(self, row_peaks: Samples, curvatures: Samples) -> Samples:
        """Returns what the true peak of each row cannot exceed, without REACH_ROWS at both ends: [rows, channels].

        The arguments are those of the rows of a `RowMatrix`. No interpolated sample exceeds the peak of the samples by
        more than the gain of the filter, or than their curvature allows, which is little if the loudest part is bass.
        """
        largest = max_over_reach(row_peaks)
        excess = max_over_reach(curvatures) * np.float32(self.curvature_gain)
        return np.asarray(np.fmin(largest * np.float32(self.max_gain), largest + excess))

    def peaks(self, surroundings: Samples, threshold: float) -> FloatArray:
        """Returns the true peaks of rows, [rows], from their surroundings, [rows, REACH_FRAMES].

        A peak that does not exceed `threshold` may be reported too low.
        """
        rows, inputs = len(surroundings), self.first.shape[1]
        windows = surroundings[:, self.start : self.start + inputs]
        scale = float(np.abs(windows).max()) or 1.0  # Sums in float32 would overflow for absurdly large samples.
        padded = np.zeros((-(-rows // ROWS_PER_PRODUCT), ROWS_PER_PRODUCT, inputs), dtype=np.float32)
        np.divide(windows, np.float32(scale), out=padded.reshape(-1, inputs)[:rows])
        doubled = np.empty((len(self.first), len(padded), ROWS_PER_PRODUCT), dtype=np.float32)
        np.matmul(self.first, padded.transpose(0, 2, 1), out=doubled.transpose(1, 0, 2))
        doubled = doubled.reshape(len(self.first), -1)[:, :rows]
        peaks = np.abs(doubled).max(axis=0)  # Includes the margins, which belong to the neighbouring rows.
        candidates = np.flatnonzero(peaks * (self.second_stage_gain * scale) > threshold)
        if self.second.size and len(candidates):
            loudest = doubled[:, candidates]
            tiles = np.stack(
                [loudest[first : first + self.second.shape[1]] for first in range(1, 1 + 2 * ROW_FRAMES, TILE)]
            )
            between = np.abs(self.second @ tiles).reshape(-1, len(candidates)).max(axis=0)
            peaks[candidates] = np.maximum(peaks[candidates], between)
        return np.asarray(peaks.astype(np.float64) * scale)


class TruePeakMeter:
    """Measures a signal segment by segment, in constant memory."""

    def __init__(self, interpolator: Interpolator) -> None:
        self._interpolator = interpolator
        self.peak = 0.0
        """The largest true peak of all channels so far, except in the last REACH_ROWS rows."""

    def feed(self, buffer: SegmentBuffer, matrix: RowMatrix, row_peaks: Samples, limits: Samples | None = None) -> None:
        """Adds the next segment, in both layouts and with the row peaks of `matrix`; the last REACH_ROWS rows will only
        be measured with the next one. `limits` [rows] says what true peaks are known not to exceed.
        """
        # Starting with the loudest row, most rows can be skipped.
        bounds = max_over_reach(row_peaks) * np.float32(self._interpolator.max_gain)
        if limits is not None:
            bounds = np.minimum(bounds, limits[:, None])
        loudest = np.flatnonzero(bounds > self.peak)
        if len(loudest) > ROWS_PER_BATCH:
            bounds = np.minimum(bounds, self._interpolator.bounds(row_peaks, matrix.curvatures()))
            loudest = np.flatnonzero(bounds > self.peak)
        bounds = bounds.ravel()
        loudest = loudest[np.argsort(-bounds[loudest], kind="stable")]
        # The first few nearly always hold the highest peak, which rules out most others.
        for batch in np.split(loudest, range(ROWS_PER_PRODUCT, len(loudest), ROWS_PER_BATCH)):
            batch = batch[bounds[batch] > self.peak]
            if not len(batch):
                break
            surroundings = buffer.surroundings[np.divmod(batch, row_peaks.shape[1])]
            self.peak = max(self.peak, float(self._interpolator.peaks(surroundings, self.peak).max()))


def oversampling_factor(sample_rate_hz: int) -> int:
    """Returns a power of two that reaches 192 kHz: at least 8 for rates up to 48 kHz, otherwise at least 4."""
    at_least = 8 if sample_rate_hz <= 48_000 else 4
    return max(at_least, 1 << math.ceil(math.log2(max(MIN_OVERSAMPLED_RATE_HZ / sample_rate_hz, 1.0))))


@cache
def build_interpolator(factor: int) -> Interpolator:
    """Returns the filters that oversample by `factor`, a power of two of at least 2."""
    first = _matrix(np.kaiser(TAPS * 2 + 1, KAISER_BETA), CUTOFF, range(2), 2, ROW_FRAMES + 2 * MARGIN)
    window = np.kaiser(SECOND_TAPS * (factor // 2) + 1, SECOND_KAISER_BETA)
    second = _matrix(window, 1.0, range(1, factor // 2), factor // 2, TILE)
    tiles = range(1, 2 * ROW_FRAMES, TILE) if second.size else ()
    responses = np.hstack([first, *(first[:, begin : begin + len(second)] @ second for begin in tiles)])
    return _create_interpolator(TAPS // 2 - 1 + MARGIN, first, second, responses)


@cache
def build_annex2_example_interpolator() -> Interpolator:
    """Returns the filter of simpler meters such as libebur128: as short as the example in Annex 2, always four times
    the rate, and passing what lies near half of the sample rate. It leaves out the samples themselves.
    """
    window = np.hanning(EXAMPLE_TAPS * EXAMPLE_PHASES + 1)
    filters = _matrix(window, 1.0, range(1, EXAMPLE_PHASES), EXAMPLE_PHASES, ROW_FRAMES)
    return _create_interpolator(EXAMPLE_TAPS // 2 - 1, filters, np.empty((0, 0)), filters)


def _create_interpolator(before: int, first: FloatArray, second: FloatArray, responses: FloatArray) -> Interpolator:
    """`before` is the number of samples that the window has before the row."""
    return Interpolator(
        REACH_ROWS * ROW_FRAMES - before,
        np.ascontiguousarray(first.T, dtype=np.float32),
        np.ascontiguousarray(second.T, dtype=np.float32),
        max_gain=float(np.abs(responses).sum(axis=0).max()),
        second_stage_gain=float(np.abs(second).sum(axis=0).max(initial=1.0)),
        curvature_gain=_curvature_gain(responses),
    )


def _curvature_gain(responses: FloatArray) -> float:
    """Returns the curvature gain of filters [window, outputs] that pass constants unchanged.

    Summing by parts twice turns an output into a point on the line between two neighbouring samples, which exceeds
    neither of them, plus a weighted sum of second differences.
    """
    outputs = np.arange(responses.shape[1])
    delays = np.arange(len(responses)) @ responses
    index = np.floor(delays).astype(np.intp)
    remainder = responses.copy()
    remainder[index, outputs] -= 1.0 - (delays - index)
    remainder[index + 1, outputs] -= delays - index
    return float(np.abs(remainder.cumsum(axis=0).cumsum(axis=0)).sum(axis=0).max())


def _matrix(window: FloatArray, cutoff: float, phases: range, factor: int, samples: int) -> FloatArray:
    """Returns a polyphase filter, a windowed sinc of taps * factor + 1, as [taps - 1 + samples, samples * phases].

    It maps taps - 1 + samples inputs to the outputs that follow the input at taps // 2 - 1 and each one after it.
    """
    centre = len(window) // 2
    taps = len(window) // factor
    n = np.arange(len(window))
    prototype = np.sinc(cutoff * (n - centre) / factor) * window
    matrix = np.zeros((taps - 1 + samples, samples, len(phases)))
    for column, phase in enumerate(phases):
        response = prototype[phase::factor][:taps]
        for sample in range(samples):
            matrix[sample : sample + taps, sample, column] = (
                response[::-1] / response.sum()
            )  # Constants pass unchanged.
    return matrix.reshape(taps - 1 + samples, -1)
