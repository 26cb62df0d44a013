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

MIN_OVERSAMPLED_RATE_HZ = 192_000
"""Annex 2 requires at least this rate."""
ROW_FRAMES = 32
"""The samples that are interpolated together."""

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
"""Samples at twice the rate in each row of the second matrix product."""
MARGIN = SECOND_TAPS // 4
"""Input samples beyond both ends of a row that the first stage also doubles, for the second stage to reach."""
WINDOW = TAPS - 1 + ROW_FRAMES + 2 * MARGIN
"""The input samples that a row is interpolated from."""
WINDOW_START = -(TAPS // 2 - 1) - MARGIN
"""Where the window of a row starts, relative to the first sample of the row."""
REACH_ROWS = 2
"""The window of a row lies within this many rows before and after it."""
ROWS_PER_PRODUCT = 32
"""Small enough that OpenBLAS does not use threads, which double the CPU time and stall on a busy machine."""
PRODUCTS_PER_BATCH = 8
ROWS_PER_BATCH = ROWS_PER_PRODUCT * PRODUCTS_PER_BATCH


@dataclass(frozen=True)
class Interpolator:
    """Polyphase filters as matrices."""

    first: Samples
    """[WINDOW, 2 * (ROW_FRAMES + 2 * MARGIN)]: the samples at twice the rate."""
    second: Samples
    """[TILE + SECOND_TAPS - 1, TILE * (phases - 1)]: the samples between them."""
    max_gain: float
    """The largest ratio of a peak to the samples in its window."""
    second_stage_gain: float
    """The largest ratio of a peak to the samples at twice the rate."""
    curvature_gain: float
    """How far a peak can exceed the samples in its window, as a multiple of the largest second difference there."""

    def peaks(self, windows: Samples, threshold: float) -> FloatArray:
        """Returns the true peaks of rows, [rows], from their windows, [rows, WINDOW].

        A peak that does not exceed `threshold` may be reported too low.
        """
        scale = float(np.abs(windows).max()) or 1.0  # Sums in float32 would overflow for absurdly large samples.
        padded = np.zeros((-(-len(windows) // ROWS_PER_PRODUCT), ROWS_PER_PRODUCT, WINDOW), dtype=np.float32)
        np.divide(windows, np.float32(scale), out=padded.reshape(-1, WINDOW)[: len(windows)])
        doubled = (padded @ self.first).reshape(-1, self.first.shape[1])[: len(windows)]
        peaks = compute_row_peaks(doubled)  # Includes the margins, which belong to the neighbouring rows.
        candidates = np.flatnonzero(peaks * (self.second_stage_gain * scale) > threshold)
        if self.second.size and len(candidates):
            size = TILE + SECOND_TAPS - 1
            tiles = np.lib.stride_tricks.sliding_window_view(doubled[candidates, 1:], size, axis=1)[:, ::TILE]
            between = np.ascontiguousarray(tiles) @ self.second
            peaks[candidates] = np.maximum(peaks[candidates], compute_row_peaks(between.reshape(len(candidates), -1)))
        return np.asarray(peaks.astype(np.float64) * scale)


class TruePeakMeter:
    """Measures a signal fed in pieces of any size, in constant memory."""

    def __init__(self, channels: int, interpolator: Interpolator) -> None:
        self._interpolator = interpolator
        # The samples that windows still reach back to, then those not interpolated yet. It starts as silence.
        self._tail = np.zeros((channels, 2 * REACH_ROWS * ROW_FRAMES), dtype=np.float32)
        self._peak = self._sample_peak = 0.0

    def feed(self, samples: Samples) -> None:
        """Adds the next frames: [frames, channels]."""
        signal = np.concatenate([self._tail, samples.T], axis=1)
        rows = signal.shape[1] // ROW_FRAMES - 2 * REACH_ROWS
        self._tail = signal[:, rows * ROW_FRAMES :]
        if rows:
            for channel in signal[:, : (rows + 2 * REACH_ROWS) * ROW_FRAMES]:
                self._interpolate(channel)

    def peak_dbtp(self) -> float | None:
        """Returns the largest true peak of all channels in dBTP, including the ringing after the end; None for digital
        silence. `feed` must not be called afterwards.
        """
        self.feed(np.zeros((3 * REACH_ROWS * ROW_FRAMES, len(self._tail)), dtype=np.float32))
        return _decibels(self._peak)

    def sample_peak_dbfs(self) -> float | None:
        """Returns the largest sample of all channels, complete after `peak_dbtp`; None for digital silence."""
        return _decibels(self._sample_peak)

    def _interpolate(self, signal: Samples) -> None:
        row_peaks = compute_row_peaks(signal.reshape(-1, ROW_FRAMES))
        self._sample_peak = max(self._sample_peak, float(row_peaks.max()))
        # No interpolated sample exceeds the peak of the samples times the gain of the filter. Starting with the loudest
        # row, most rows can be skipped.
        bounds = max_over_reach(row_peaks) * self._interpolator.max_gain
        windows = row_windows(signal)
        loudest = np.flatnonzero(bounds > self._peak)
        if len(loudest) > ROWS_PER_BATCH:
            # Nor can it exceed them by more than their curvature allows, which is little if the loudest part is bass.
            excess = max_over_reach(_row_curvatures(signal)) * self._interpolator.curvature_gain
            bounds = np.fmin(bounds, max_over_reach(row_peaks) + excess)
            loudest = loudest[bounds[loudest] > self._peak]
        loudest = loudest[np.argsort(-bounds[loudest], kind="stable")]
        for first in range(0, len(loudest), ROWS_PER_BATCH):
            batch = loudest[first : first + ROWS_PER_BATCH]
            if bounds[batch[0]] <= self._peak:
                break
            batch = batch[bounds[batch] > self._peak]
            self._peak = max(self._peak, float(self._interpolator.peaks(windows[batch], self._peak).max()))


def compute_row_peaks(rows: Samples) -> Samples:
    """Returns the largest magnitude of each row: [rows]."""
    # Twice as fast as max(axis=1).
    return np.asarray(np.maximum.reduceat(np.abs(rows).ravel(), np.arange(0, rows.size, rows.shape[1])))


def _row_curvatures(signal: Samples) -> Samples:
    """Returns the largest magnitude of the second difference in each row: [rows]."""
    differences = np.zeros_like(signal)  # No window contains the two end samples.
    differences[1:-1] = np.diff(signal, 2)
    return compute_row_peaks(differences.reshape(-1, ROW_FRAMES))


def row_windows(signal: Samples) -> Samples:
    """Returns a view of the windows of a channel's rows, without REACH_ROWS at both ends: [rows, WINDOW]."""
    begin = REACH_ROWS * ROW_FRAMES + WINDOW_START
    windows = np.lib.stride_tricks.sliding_window_view(signal[begin:], WINDOW)[::ROW_FRAMES]
    return windows[: len(signal) // ROW_FRAMES - 2 * REACH_ROWS]


def max_over_reach(row_peaks: Samples) -> Samples:
    """Returns the largest peak of the rows that each row's window reaches, without REACH_ROWS at both ends: [rows]."""
    largest = row_peaks[: len(row_peaks) - 2 * REACH_ROWS]
    for shift in range(1, 2 * REACH_ROWS + 1):
        largest = np.maximum(largest, row_peaks[shift : shift + len(largest)])
    return largest


def _decibels(amplitude: float) -> float | None:
    return 20.0 * math.log10(amplitude) if amplitude else None


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
    return _create_interpolator(first, second, responses)


@cache
def build_annex2_example_interpolator() -> Interpolator:
    """Returns the filter of simpler meters such as libebur128: as short as the example in Annex 2, always four times
    the rate, and passing what lies near half of the sample rate.
    """
    window = np.hanning(EXAMPLE_TAPS * EXAMPLE_PHASES + 1)
    filters = _matrix(window, 1.0, range(EXAMPLE_PHASES), EXAMPLE_PHASES, ROW_FRAMES)
    before = -WINDOW_START - (EXAMPLE_TAPS // 2 - 1)
    first = np.pad(filters, ((before, WINDOW - before - len(filters)), (0, 0)))
    return _create_interpolator(first, np.empty((0, 0)), first)


def _create_interpolator(first: FloatArray, second: FloatArray, responses: FloatArray) -> Interpolator:
    return Interpolator(
        first.astype(np.float32),
        second.astype(np.float32),
        max_gain=float(np.abs(responses).sum(axis=0).max()),
        second_stage_gain=float(np.abs(second).sum(axis=0).max(initial=1.0)),
        curvature_gain=_curvature_gain(responses),
    )


def _curvature_gain(responses: FloatArray) -> float:
    """Returns the curvature gain of filters [WINDOW, outputs] that pass constants unchanged.

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
