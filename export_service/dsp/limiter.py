"""A look-ahead limiter: one gain for all channels, which falls before a peak arrives and recovers after it has passed.

The gain is decided in dB for each row of the envelope. The reduction that a row needs is held for a while before and
after it (a sliding minimum). The gain curve is the highest curve that stays below all held reductions and whose slope
stays within the attack and release rates; between rows it is linear. So nothing exceeds the ceiling, and the gain has
no steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from export_service.dsp.arrays import FloatArray, Samples
from export_service.dsp.envelope import BlockSource, Envelope
from export_service.dsp.loudness import HOPS_PER_SECOND
from export_service.dsp.segments import ROW_FRAMES, SEGMENT_ROWS, split_into_segments

ATTACK_DB_PER_SECOND = 1500.0
"""Reaches the full 6 dB within the 4 ms before a peak, which masks it."""
MAX_REDUCTION_DB = 6.0
"""More would be audible as pumping."""
REFINEMENT_MARGIN_DB = 2.0
"""The envelope is refined for this much more gain than requested, because the solver raises the gain to make up for the
loudness that limiting costs."""
CURVE_ROWS = 8 * SEGMENT_ROWS
"""The rows whose gain is computed together."""
MIN_AUDIBLE_REDUCTION_DB = 0.01
"""A frame that is reduced by less does not count as limited."""


@dataclass(frozen=True)
class ReleaseProfile:
    """How long a limiter holds a reduction, and how fast it releases it."""

    hold_seconds: float
    """Before and after a peak."""
    release_db_per_second: float


GENTLE_RELEASE = ReleaseProfile(0.003, 400.0)
"""Preserves the shape of bass: between two peaks of a tone of 80 Hz or more, the gain does not move."""
FAST_RELEASE = ReleaseProfile(0.0, ATTACK_DB_PER_SECOND)
"""Costs the least loudness, but distorts the peaks of bass."""


@dataclass(frozen=True)
class LimiterSettings:
    """The settings of a limiter."""

    gain_db: float
    """Applied to every sample, before limiting."""
    ceiling_dbtp: float
    """The true peak that the limited signal does not exceed."""
    release: ReleaseProfile = GENTLE_RELEASE

    @property
    def over_db(self) -> float:
        """By how much a full-scale peak would exceed the ceiling after the gain."""
        return self.gain_db - self.ceiling_dbtp


@dataclass(frozen=True)
class GainReduction:
    """What a limiter takes off a whole signal."""

    max_db: float
    share: float
    """The share of frames that are limited: 0 to 1."""
    hop_energies: FloatArray
    """The K-weighted energy removed from each 100 ms, before the gain."""


class Limiter:
    """A limiter for one signal, which can be run with different settings."""

    def __init__(self, envelope: Envelope, blocks: BlockSource, sample_rate_hz: int) -> None:
        self._envelope, self._blocks, self._rate = envelope, blocks, sample_rate_hz
        self._refined_db = -np.inf
        """The largest `over_db` for which every peak over the ceiling is known as a true peak."""
        self._peak = 0.0

    def max_gain_db(self, settings: LimiterSettings) -> float:
        """Returns the gain at which the highest peak needs MAX_REDUCTION_DB, for settings that limit at all."""
        self._refine(settings)
        return settings.ceiling_dbtp + MAX_REDUCTION_DB - 20.0 * math.log10(self._peak)

    def reduction(self, settings: LimiterSettings) -> GainReduction:
        """Computes the reduction from the envelope, without touching the signal."""
        hops = self._envelope.frames * HOPS_PER_SECOND // self._rate + 1
        energies, max_db, frames = np.zeros(hops), 0.0, 0
        for first, curve in self._curves(settings):
            max_db = max(max_db, -float(curve.min()))
            frames += ROW_FRAMES * int((np.minimum(curve[1:], curve[:-1]) < -MIN_AUDIBLE_REDUCTION_DB).sum())
            rows = _limited_rows(curve)
            before, after = _amplitudes(curve[rows]), _amplitudes(curve[rows + 1])
            # The mean square of a straight line from one gain to the next.
            squares = (after**2 + after * before + before**2) / 3.0
            removed = self._envelope.energies(first, first + len(curve) - 1)[rows] * (1.0 - squares)
            centres = (first + rows) * ROW_FRAMES + ROW_FRAMES // 2
            np.add.at(energies, np.minimum(centres * HOPS_PER_SECOND // self._rate, hops - 1), removed)
        return GainReduction(max_db, min(frames / self._envelope.frames, 1.0), energies)

    def blocks(self, settings: LimiterSettings) -> Iterator[Samples]:
        """Yields the limited signal: [frames, channels] each."""
        for samples, curve in zip(split_into_segments(self._blocks()), self._segment_curves(settings), strict=True):
            yield _apply(curve, samples, settings.gain_db)

    def segments(self, settings: LimiterSettings) -> Iterator[tuple[Samples, Samples]]:
        """Yields the limited signal in segments, each with the `limits` of its rows for `LimitedSignalMeter`."""
        self._refine(settings)
        least_peak, gain = 10.0 ** (-self._refined_db / 20.0), 10.0 ** (settings.gain_db / 20.0)
        segments = zip(split_into_segments(self._blocks()), self._segment_curves(settings), strict=True)
        for index, (samples, curve) in enumerate(segments):
            peaks = self._envelope.peaks(index * SEGMENT_ROWS, (index + 1) * SEGMENT_ROWS)
            limits = np.maximum(peaks, np.float32(least_peak)) * np.float32(gain)
            limits[_limited_rows(curve)] = np.inf
            yield _apply(curve, samples, settings.gain_db), limits

    def _segment_curves(self, settings: LimiterSettings) -> Iterator[FloatArray]:
        """Yields the gain curve of each segment: [rows + 1]."""
        for _, curve in self._curves(settings):
            for begin in range(0, len(curve) - 1, SEGMENT_ROWS):
                yield curve[begin : begin + SEGMENT_ROWS + 1]

    def _curves(self, settings: LimiterSettings) -> Iterator[tuple[int, FloatArray]]:
        """Yields the gain curve of each CURVE_ROWS at the edges of the rows, in dB up to 0: the first row, and a curve
        of [rows + 1].
        """
        self._refine(settings)
        over_db = settings.over_db
        curve = _GainCurve(self._rate, settings.release)
        next_needs = self._required_gains(0, over_db)
        curve.advance(np.zeros(1), next_needs)  # The row before the first one.
        for first in range(0, self._envelope.rows, CURVE_ROWS):
            needs, next_needs = next_needs, self._required_gains(first + CURVE_ROWS, over_db)
            yield first, curve.advance(needs, next_needs)

    def _refine(self, settings: LimiterSettings) -> None:
        if settings.over_db > self._refined_db:
            self._refined_db = settings.over_db + REFINEMENT_MARGIN_DB
            self._peak = self._envelope.refine(self._blocks(), 10.0 ** (-self._refined_db / 20.0))

    def _required_gains(self, first: int, over_db: float) -> FloatArray:
        """Returns the gain that each of CURVE_ROWS rows needs, in dB up to 0; fewer at the end of the signal."""
        peaks = self._envelope.peaks(first, first + CURVE_ROWS)
        needs = np.zeros(len(peaks))
        over = np.flatnonzero(peaks > 10.0 ** (-over_db / 20.0))
        needs[over] = np.maximum(-over_db - 20.0 * np.log10(peaks[over].astype(np.float64)), -MAX_REDUCTION_DB)
        return needs


def _limited_rows(curve: FloatArray) -> npt.NDArray[np.intp]:
    """Returns the rows in which a curve is below 0 dB."""
    return np.flatnonzero((curve[1:] < 0) | (curve[:-1] < 0))


def _amplitudes(decibels: FloatArray) -> FloatArray:
    return np.asarray(np.exp(decibels * (math.log(10.0) / 20.0)))


def _apply(curve: FloatArray, samples: Samples, gain_db: float) -> Samples:
    """Returns the samples [frames, channels] with the gain and, on top of it, the curve at the edges of their rows."""
    gain = 10.0 ** (gain_db / 20.0)
    limited = samples * np.float32(gain)
    rows, (frames, channels) = _limited_rows(curve), samples.shape
    if not len(rows):
        return limited
    before, after = gain * _amplitudes(curve[rows]), gain * _amplitudes(curve[rows + 1])
    ramp = np.repeat(np.arange(ROW_FRAMES) / ROW_FRAMES, channels)
    gains = before[:, None] + (after - before)[:, None] * ramp
    if missing := -frames % ROW_FRAMES:
        samples, limited = np.pad(samples, ((0, missing), (0, 0))), np.pad(limited, ((0, missing), (0, 0)))
    limited.reshape(-1, len(ramp))[rows] = samples.reshape(-1, len(ramp))[rows] * gains
    return limited[:frames]


class _GainCurve:
    """Computes gains in dB at the edges of rows from the gains that the rows need."""

    def __init__(self, sample_rate_hz: int, release: ReleaseProfile) -> None:
        rows_per_second = sample_rate_hz / ROW_FRAMES
        self._attack_db = ATTACK_DB_PER_SECOND / rows_per_second
        self._release_db = release.release_db_per_second / rows_per_second
        self._hold_rows = round(release.hold_seconds * rows_per_second)
        self._look_ahead_rows = self._hold_rows + math.ceil(MAX_REDUCTION_DB / self._attack_db)
        """How many rows of the next segment the curve of a segment depends on."""
        self._before = np.zeros(self._hold_rows + 1)
        """The needs of the rows before the last edge that are still held after it."""
        self._last_db = 0.0
        """The gain at the last edge."""
        edges = np.arange(CURVE_ROWS + self._look_ahead_rows + 1)
        self._falls, self._rises = edges * self._attack_db, edges * self._release_db

    def advance(self, needs: FloatArray, next_needs: FloatArray) -> FloatArray:
        """Returns the curve at the edges of the next rows, starting at the last edge: [rows + 1]."""
        after = next_needs[: self._look_ahead_rows]
        rows = np.concatenate([self._before, needs, after, np.zeros(self._look_ahead_rows - len(after))])
        # An edge needs the gain of the rows on both sides and of those that are held.
        held = _sliding_minimum(rows, 2 * self._hold_rows + 2)
        held[0] = self._last_db
        falls, rises = self._falls[: len(held)], self._rises[: len(held)]
        falling = np.minimum.accumulate((held + falls)[::-1])[::-1] - falls
        curve: FloatArray = (np.minimum.accumulate(falling - rises) + rises)[: len(needs) + 1]
        self._before = rows[len(needs) : len(needs) + len(self._before)]
        self._last_db = float(curve[-1])
        return curve


def _sliding_minimum(values: FloatArray, width: int) -> FloatArray:
    """Returns the minimum of each run of `width` values: [len(values) - width + 1]."""
    covered = 1
    while covered < width:
        step = min(covered, width - covered)
        values = np.minimum(values[:-step], values[step:])
        covered += step
    return values
