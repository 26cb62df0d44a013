"""A look-ahead limiter: one gain for all channels, lowered before a peak comes and raised again after it has gone.

The gain is decided for each row of the envelope, in dB: what a row needs is held for a while before it and after it (a
sliding minimum), and the curve is the highest that passes none of that and falls and rises no faster than it may.
Between the rows it is a straight line. So nothing passes the ceiling, and there are no steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from export_service.dsp.envelope import SEGMENT_FRAMES, Blocks, Envelope, in_segments
from export_service.dsp.loudness import HOPS_PER_SECOND, Samples, Series
from export_service.dsp.true_peak import ROW

ATTACK_DB_PER_SECOND = 1500.0
"""All of 6 dB in the 4 ms before a peak, which hides it."""
MAX_REDUCTION_DB = 6.0
"""More would be heard as pumping."""
REFINED_BEYOND_DB = 2.0
"""So much more gain than asked for the envelope is made fit for: the loudness that limiting costs is made up for."""
AUDIBLE_DB = 0.01
"""A frame turned down by less counts as left alone."""


@dataclass(frozen=True)
class Pace:
    """How long a limiter holds what it takes off, and how fast it lets go."""

    hold_seconds: float
    """Before a peak and after it."""
    release_db_per_second: float


GENTLE = Pace(0.003, 400.0)
"""Bass keeps its shape: between two peaks of 80 Hz and above, the gain does not move."""
BRISK = Pace(0.0, ATTACK_DB_PER_SECOND)
"""Takes off the least loudness, and bends the peaks of bass."""


@dataclass(frozen=True)
class Setting:
    """What a limiter is set to."""

    gain_db: float
    """Applied to every sample."""
    ceiling_dbtp: float
    """Not passed by what comes of that."""
    pace: Pace = GENTLE

    @property
    def over_db(self) -> float:
        """By which what lies at full scale would pass the ceiling."""
        return self.gain_db - self.ceiling_dbtp


@dataclass(frozen=True)
class Reduction:
    """What a limiter takes off a whole signal."""

    largest_db: float
    share: float
    """Of the frames, those that are turned down: 0 to 1."""
    hop_energies: Series
    """What it takes off the K-weighted energy of each 100 ms, before the gain."""


class Limiter:
    """A limiter for one signal, which can be set and set again."""

    def __init__(self, envelope: Envelope, blocks: Blocks, sample_rate_hz: int) -> None:
        self._envelope, self._blocks, self._rate = envelope, blocks, sample_rate_hz
        self._refined_db = -np.inf
        """How far a gain may pass the ceiling for the envelope to be the waveform's wherever that does, too."""
        self._peak = 0.0

    def most_gain_db(self, setting: Setting) -> float:
        """The gain at which as much is taken off as ever is, for a setting that takes off anything at all."""
        self._refine(setting)
        return setting.ceiling_dbtp + MAX_REDUCTION_DB - 20.0 * math.log10(self._peak)

    def reduction(self, setting: Setting) -> Reduction:
        """What it would take off."""
        hops = self._envelope.frames * HOPS_PER_SECOND // self._rate + 1
        energies, largest, rows = np.zeros(hops), 0.0, 0
        for index, curve in enumerate(self._curves(setting)):
            if curve is None:
                continue
            largest = max(largest, -float(curve.min()))
            rows += int((np.minimum(curve[1:], curve[:-1]) < -AUDIBLE_DB).sum())
            gains = 10.0 ** (curve / 20.0)
            # The mean square of a straight line from one gain to the next.
            squares = (gains[1:] ** 2 + gains[1:] * gains[:-1] + gains[:-1] ** 2) / 3.0
            taken = self._envelope.segment(index)[1] * (1.0 - squares)
            centres = index * SEGMENT_FRAMES + np.arange(len(taken)) * ROW + ROW // 2
            np.add.at(energies, np.minimum(centres * HOPS_PER_SECOND // self._rate, hops - 1), taken)
        return Reduction(largest, min(rows * ROW / self._envelope.frames, 1.0), energies)

    def blocks(self, setting: Setting) -> Iterator[Samples]:
        """The signal, limited."""
        gain = 10.0 ** (setting.gain_db / 20.0)
        ramp = np.arange(ROW) / ROW
        for samples, curve in zip(in_segments(self._blocks()), self._curves(setting), strict=True):
            if curve is None:
                yield (samples * np.float64(gain)).astype(np.float32)
                continue
            gains = gain * 10.0 ** (curve / 20.0)
            lines = gains[:-1, None] + np.diff(gains)[:, None] * ramp
            yield (samples * lines.reshape(-1, 1)[: len(samples)]).astype(np.float32)

    def _curves(self, setting: Setting) -> Iterator[Series | None]:
        """The reduction at the edges of each segment's rows in dB, up to 0: [rows + 1]; None where there is none."""
        self._refine(setting)
        over_db = setting.over_db
        curve = _Curve(self._rate, setting.pace)
        ahead = self._needs(0, over_db)
        curve.advance(np.zeros(1), ahead)  # What comes before the first row.
        for index in range(self._envelope.segments):
            needs, ahead = ahead, self._needs(index + 1, over_db)
            yield curve.advance(needs, ahead)

    def _refine(self, setting: Setting) -> None:
        if setting.over_db > self._refined_db:
            self._refined_db = setting.over_db + REFINED_BEYOND_DB
            self._peak = self._envelope.refine(self._blocks(), 10.0 ** (-self._refined_db / 20.0))

    def _needs(self, index: int, over_db: float) -> Series:
        """The reduction that each row of a segment needs in dB, up to 0: [rows]."""
        peaks = self._envelope.segment(index)[0]
        needs = np.zeros(len(peaks))
        over = np.flatnonzero(peaks > 10.0 ** (-over_db / 20.0))
        needs[over] = np.maximum(-over_db - 20.0 * np.log10(peaks[over]), -MAX_REDUCTION_DB)
        return needs


class _Curve:
    """Reductions at the edges of rows, from what the rows need."""

    def __init__(self, sample_rate_hz: int, pace: Pace) -> None:
        rows_per_second = sample_rate_hz / ROW
        self._attack_db = ATTACK_DB_PER_SECOND / rows_per_second
        self._release_db = pace.release_db_per_second / rows_per_second
        self._hold = round(pace.hold_seconds * rows_per_second)
        self._ahead = self._hold + math.ceil(MAX_REDUCTION_DB / self._attack_db)
        """How many rows of the next segment a segment's curve depends on."""
        self._before = np.zeros(self._hold + 1)
        """What the rows up to the last edge needed that are near enough to matter after it."""
        self._last_db = 0.0
        """At the last edge."""

    def advance(self, needs: Series, next_needs: Series) -> Series | None:
        """The curve at the edges of the next rows, from the last edge on: [rows + 1]; None where it is 0 dB."""
        after = next_needs[: self._ahead]
        rows = np.concatenate([self._before, needs, after, np.zeros(self._ahead - len(after))])
        if not (rows.any() or self._last_db):
            return None
        # An edge needs what the rows on its two sides do, and those that are held.
        held = _smallest(rows, 2 * self._hold + 2)
        held[0] = self._last_db
        falls, rises = (np.arange(len(held)) * step for step in (self._attack_db, self._release_db))
        falling = np.minimum.accumulate((held + falls)[::-1])[::-1] - falls
        curve: Series = (np.minimum.accumulate(falling - rises) + rises)[: len(needs) + 1]
        self._before = rows[len(needs) : len(needs) + len(self._before)]
        self._last_db = float(curve[-1])
        return curve


def _smallest(values: Series, width: int) -> Series:
    """Of each run of so many values: [len(values) - width + 1]."""
    covered = 1
    while covered < width:
        step = min(covered, width - covered)
        values = np.minimum(values[:-step], values[step:])
        covered += step
    return values
