"""True peak (ITU-R BS.1770-5, Annex 2): the peak of the waveform that samples stand for, measured as they arrive.

The waveform is that of the band which converters and resamplers pass, up to 0.457 of the sample rate. What lies closer
to half of it, such as the last of a white noise, reaches no loudspeaker; so a true peak can lie below a sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
Windows = npt.NDArray[np.float32]
"""[rows, WINDOW]: the samples that each row is interpolated from."""

OVERSAMPLED_HZ = 192_000
"""Annex 2 asks for at least this rate."""
ROW = 32
"""Samples that are interpolated together."""

# To twice the rate with a sharp filter, then on from there with short ones: half the work of one step.
TAPS = 64
CUTOFF = 0.957
"""Of half the sample rate, where the sharp filter has fallen to a half."""
KAISER_BETA = 3.0
SECOND_TAPS = 8
SECOND_KAISER_BETA = 4.0
EXAMPLE_TAPS, EXAMPLE_PHASES = 12, 4
"""Of the filter that Annex 2 gives as an example."""
TILE = 16
"""Samples at twice the rate that a row of the second product stands for."""
MARGIN = SECOND_TAPS // 4
"""Samples beyond both ends of a row that the second step needs at twice the rate."""
WINDOW = TAPS - 1 + ROW + 2 * MARGIN
WINDOW_BEGIN = -(TAPS // 2 - 1) - MARGIN
"""Where a row's window begins, from the row's first sample."""
REACH_ROWS = 2
"""A row's window lies within so many rows before it and after it."""
ROWS_A_PRODUCT = 32
"""Few enough that OpenBLAS uses no threads, which double the CPU time and stall on a busy machine."""
PRODUCTS_AT_ONCE = 8
ROWS_AT_ONCE = ROWS_A_PRODUCT * PRODUCTS_AT_ONCE


@dataclass(frozen=True)
class Interpolator:
    """The polyphase filters as matrices."""

    first: Samples
    """[WINDOW, 2 * (ROW + 2 * MARGIN)]: samples at twice the rate."""
    second: Samples
    """[TILE + SECOND_TAPS - 1, TILE * (phases - 1)]: the samples between those."""
    largest_gain: float
    """By which a peak can pass the samples in its window."""
    second_gain: float
    """By which it can pass the samples at twice the rate."""
    bend_gain: float
    """So many of the largest second difference in its window a peak can lie above the samples there."""

    def peaks(self, windows: Windows, beyond: float) -> npt.NDArray[np.float64]:
        """The peak of each row's waveform, or less where it does not pass `beyond`: [rows]."""
        scale = float(np.abs(windows).max()) or 1.0  # float32 overflows in sums where samples are absurdly large.
        padded = np.zeros((-(-len(windows) // ROWS_A_PRODUCT), ROWS_A_PRODUCT, WINDOW), dtype=np.float32)
        np.divide(windows, np.float32(scale), out=padded.reshape(-1, WINDOW)[: len(windows)])
        doubled = (padded @ self.first).reshape(-1, self.first.shape[1])[: len(windows)]
        peaks = magnitudes(doubled)  # With the margins, which belong to the rows beside it.
        further = np.flatnonzero(peaks * (self.second_gain * scale) > beyond)
        if self.second.size and len(further):
            size = TILE + SECOND_TAPS - 1
            tiles = np.lib.stride_tricks.sliding_window_view(doubled[further, 1:], size, axis=1)[:, ::TILE]
            between = np.ascontiguousarray(tiles) @ self.second
            peaks[further] = np.maximum(peaks[further], magnitudes(between.reshape(len(further), -1)))
        return np.asarray(peaks.astype(np.float64) * scale)


class TruePeakMeter:
    """Takes in a signal in pieces of any size; memory does not grow."""

    def __init__(self, channels: int, through: Interpolator) -> None:
        self._interpolator = through
        # What a row's window reaches back to, then what could not be interpolated yet: silence, at first.
        self._tail = np.zeros((channels, 2 * REACH_ROWS * ROW), dtype=np.float32)
        self._peak = self._sample_peak = 0.0

    def feed(self, samples: Samples) -> None:
        """Takes in the next frames: [frames, channels]."""
        signal = np.concatenate([self._tail, samples.T], axis=1)
        rows = signal.shape[1] // ROW - 2 * REACH_ROWS
        self._tail = signal[:, rows * ROW :]
        if rows:
            for channel in signal[:, : (rows + 2 * REACH_ROWS) * ROW]:
                self._interpolate(channel)

    def peak_dbtp(self) -> float | None:
        """The largest true peak of all channels in dBTP, with the waveform's ring after its end; None for digital
        silence. Nothing may be fed after.
        """
        self.feed(np.zeros((3 * REACH_ROWS * ROW, len(self._tail)), dtype=np.float32))
        return _decibels(self._peak)

    def sample_peak_dbfs(self) -> float | None:
        """The largest sample of all channels whose true peak is known; None for digital silence."""
        return _decibels(self._sample_peak)

    def _interpolate(self, signal: Samples) -> None:
        row_peaks = magnitudes(signal.reshape(-1, ROW))
        self._sample_peak = max(self._sample_peak, float(row_peaks.max()))
        # No interpolated sample can pass the samples' peak times the filter's gain: loudest first, most rows are out.
        bounds = within_reach(row_peaks) * self._interpolator.largest_gain
        windows = row_windows(signal)
        loudest = np.flatnonzero(bounds > self._peak)
        if len(loudest) > ROWS_AT_ONCE:
            # Nor can it pass them by more than they bend, which is little where the loudest is bass.
            over = within_reach(_bends(signal)) * self._interpolator.bend_gain
            bounds = np.fmin(bounds, within_reach(row_peaks) + over)
            loudest = loudest[bounds[loudest] > self._peak]
        loudest = loudest[np.argsort(-bounds[loudest], kind="stable")]
        for first in range(0, len(loudest), ROWS_AT_ONCE):
            some = loudest[first : first + ROWS_AT_ONCE]
            if bounds[some[0]] <= self._peak:
                break
            some = some[bounds[some] > self._peak]
            self._peak = max(self._peak, float(self._interpolator.peaks(windows[some], self._peak).max()))


def magnitudes(rows: Samples) -> Samples:
    """The largest magnitude of each row."""
    # Twice as fast as max(axis=1).
    return np.asarray(np.maximum.reduceat(np.abs(rows).ravel(), np.arange(0, rows.size, rows.shape[1])))


def _bends(signal: Samples) -> Samples:
    """The largest second difference of each row, by magnitude."""
    bends = np.zeros_like(signal)  # Its two ends lie inside no window.
    bends[1:-1] = np.diff(signal, 2)
    return magnitudes(bends.reshape(-1, ROW))


def row_windows(signal: Samples) -> Windows:
    """The windows of a channel's rows, but for REACH_ROWS at both ends; nothing is copied."""
    begin = REACH_ROWS * ROW + WINDOW_BEGIN
    windows = np.lib.stride_tricks.sliding_window_view(signal[begin:], WINDOW)[::ROW]
    return windows[: len(signal) // ROW - 2 * REACH_ROWS]


def within_reach(row_peaks: Samples) -> Samples:
    """The largest of the rows that each row's window touches, but for REACH_ROWS at both ends."""
    largest = row_peaks[: len(row_peaks) - 2 * REACH_ROWS]
    for shift in range(1, 2 * REACH_ROWS + 1):
        largest = np.maximum(largest, row_peaks[shift : shift + len(largest)])
    return largest


def _decibels(amplitude: float) -> float | None:
    return 20.0 * math.log10(amplitude) if amplitude else None


def oversampling(sample_rate_hz: int) -> int:
    """A power of two that reaches 192 kHz: at least 8, or 4 for more than 48 kHz."""
    at_least = 8 if sample_rate_hz <= 48_000 else 4
    return max(at_least, 1 << math.ceil(math.log2(max(OVERSAMPLED_HZ / sample_rate_hz, 1.0))))


@cache
def interpolator(factor: int) -> Interpolator:
    """The filters for so many times the rate: a power of two from 2."""
    first = _matrix(np.kaiser(TAPS * 2 + 1, KAISER_BETA), CUTOFF, range(2), 2, ROW + 2 * MARGIN)
    window = np.kaiser(SECOND_TAPS * (factor // 2) + 1, SECOND_KAISER_BETA)
    second = _matrix(window, 1.0, range(1, factor // 2), factor // 2, TILE)
    tiles = range(1, 2 * ROW, TILE) if second.size else ()
    responses = np.hstack([first, *(first[:, begin : begin + len(second)] @ second for begin in tiles)])
    return _interpolator(first, second, responses)


@cache
def example_interpolator() -> Interpolator:
    """The filter of simpler meters, libebur128's among them: as short as the example in Annex 2, four times the rate
    whatever that is, and open to what lies near half of it.
    """
    window = np.hanning(EXAMPLE_TAPS * EXAMPLE_PHASES + 1)
    filters = _matrix(window, 1.0, range(EXAMPLE_PHASES), EXAMPLE_PHASES, ROW)
    before = -WINDOW_BEGIN - (EXAMPLE_TAPS // 2 - 1)
    first = np.pad(filters, ((before, WINDOW - before - len(filters)), (0, 0)))
    return _interpolator(first, np.empty((0, 0)), first)


def _interpolator(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], responses: npt.NDArray[np.float64]
) -> Interpolator:
    return Interpolator(
        first.astype(np.float32),
        second.astype(np.float32),
        largest_gain=float(np.abs(responses).sum(axis=0).max()),
        second_gain=float(np.abs(second).sum(axis=0).max(initial=1.0)),
        bend_gain=_bend_gain(responses),
    )


def _bend_gain(responses: npt.NDArray[np.float64]) -> float:
    """Of filters [WINDOW, outputs] that pass constants: by parts twice, an output is a point on the line between two
    samples next to each other, which passes neither, and a sum of second differences.
    """
    outputs = np.arange(responses.shape[1])
    delays = np.arange(len(responses)) @ responses
    before = np.floor(delays).astype(np.intp)
    rest = responses.copy()
    rest[before, outputs] -= 1.0 - (delays - before)
    rest[before + 1, outputs] -= delays - before
    return float(np.abs(rest.cumsum(axis=0).cumsum(axis=0)).sum(axis=0).max())


def _matrix(
    window: npt.NDArray[np.float64], cutoff: float, phases: range, factor: int, samples: int
) -> npt.NDArray[np.float64]:
    """A polyphase filter, a windowed sinc of taps * factor + 1, as [taps - 1 + samples, samples * phases].

    Of so many input samples it gives what follows the sample at taps // 2 - 1 and each of those after it.
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
