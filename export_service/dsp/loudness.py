"""Loudness by ITU-R BS.1770-5 and EBU Tech 3341/3342, measured while the audio arrives.

The gating is our own, because pyloudnorm needs the whole signal in memory.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass

import numpy as np

from export_service.dsp.arrays import FloatArray, Samples
from export_service.dsp.k_weighting import KWeighting
from export_service.dsp.segments import ROW_FRAMES

HOPS_PER_SECOND = 10
"""Gating blocks start every 100 ms: 400 ms with 75 % overlap (BS.1770-5), which is also the minimum update rate of
Tech 3341."""
MOMENTARY_HOPS = 4
"""400 ms."""
SHORT_TERM_HOPS = 30
"""3 s."""
ABSOLUTE_GATE_LUFS = -70.0
RELATIVE_GATE_LU = -10.0
RANGE_RELATIVE_GATE_LU = -20.0
RANGE_LOW, RANGE_HIGH = 0.10, 0.95
"""The quantiles of short-term loudness that bound the loudness range (Tech 3342)."""


@dataclass(frozen=True)
class Loudness:
    """The loudness figures of a whole signal. A figure is None if the signal is too short or too quiet for it."""

    integrated_lufs: float | None
    max_momentary_lufs: float | None
    max_short_term_lufs: float | None
    range_lu: float | None


class LoudnessMeter:
    """Measures a signal of one or two channels, segment by segment.

    Its memory grows by one number for each 100 ms.
    """

    def __init__(self, sample_rate_hz: int, channels: int) -> None:
        self._rate, self._channels = sample_rate_hz, channels
        self._weighting = KWeighting(sample_rate_hz, channels)
        self._frames = 0
        self._energies = array("d")  # One for each complete hop.
        self._open_energy = 0.0  # Of the hop in progress.

    def feed(self, segment: Samples, frames: int, scale: float) -> FloatArray:
        """Adds the next segment, of which only the last one may have fewer than SEGMENT_FRAMES: that of a `RowMatrix`,
        times `scale`. Returns the K-weighted energies of its rows, summed over channels: [rows].
        """
        weighted = self._weighting.weigh(segment, scale)
        rows = -(-frames // ROW_FRAMES)
        if used := frames % ROW_FRAMES:  # The filter rings on after the last frame.
            weighted[used:, (rows - 1) * self._channels : rows * self._channels] = 0.0
        # BS.1770-5 eq. 1 and 2: mean square of each channel, summed with weight 1.0 for left, right and mono.
        columns = np.einsum("lc,lc->c", weighted, weighted)[: rows * self._channels].astype(np.float64)
        energies: FloatArray = columns.reshape(rows, self._channels) @ np.full(self._channels, 1.0 / scale**2)
        self._add_to_hops(energies, weighted, frames, scale)
        return energies

    def _add_to_hops(self, energies: FloatArray, weighted: Samples, frames: int, scale: float) -> None:
        first, end = self._frames, self._frames + frames
        hops = np.arange(self._hop_of(first), self._hop_of(end - 1) + 1)
        rows, offsets = np.divmod(np.maximum(hops * self._rate // HOPS_PER_SECOND - first, 0), ROW_FRAMES)
        heads = np.zeros(len(hops))
        if offsets.any():
            # Of a row that a hop begins within, the samples before belong to the previous hop.
            squares = np.square(weighted.reshape(ROW_FRAMES, -1, self._channels)[:, rows], dtype=np.float64) / scale**2
            squares = squares.sum(axis=2)
            is_head = np.arange(ROW_FRAMES)[:, None] < offsets
            heads = (squares * is_head).sum(axis=0)
            energies = energies.copy()
            energies[rows] = (squares * ~is_head).sum(axis=0)
        sums = np.add.reduceat(energies, rows)
        sums[:-1] = np.where(rows[1:] > rows[:-1], sums[:-1], 0.0) + heads[1:]
        sums[0] += self._open_energy
        complete = len(sums) if end >= self._hop_start(int(hops[-1]) + 1) else len(sums) - 1
        self._energies.frombytes(sums[:complete].tobytes())
        self._open_energy = float(sums[complete:].sum())
        self._frames = end

    def momentary(self) -> FloatArray:
        """Returns the loudness of each complete 400 ms in LUFS, one value every 100 ms; -inf for digital silence."""
        return _lufs(self._mean_squares(self._complete_energies(), MOMENTARY_HOPS))

    def short_term(self) -> FloatArray:
        """Returns the loudness of each complete 3 s in LUFS, one value every 100 ms; -inf for digital silence."""
        return _lufs(self._mean_squares(self._complete_energies(), SHORT_TERM_HOPS))

    def centred(self, hops: int) -> FloatArray:
        """Returns the loudness in LUFS of the `hops` 100 ms around the beginning of each complete 100 ms and the end of
        the last; -inf for digital silence. Before and after the signal there is silence.
        """
        silence = np.zeros(hops // 2)
        padded = np.concatenate([silence, self._complete_energies(), silence])
        return _lufs(self._mean_squares(padded, hops, first_hop=-(hops // 2)))

    def measure(self) -> Loudness:
        """Returns the figures of everything fed so far. An incomplete last gating block does not count."""
        return Loudness(
            integrated_lufs=_integrated(self._mean_squares(self._complete_energies(), MOMENTARY_HOPS)),
            max_momentary_lufs=_finite_max(self.momentary()),
            max_short_term_lufs=_finite_max(self.short_term()),
            range_lu=_range(self.short_term()),
        )

    def integrated_after_reduction(self, energies: FloatArray, gain_db: float) -> float | None:
        """Returns the integrated loudness in LUFS after removing `energies` from the K-weighted energy of each 100 ms
        and applying a gain to the rest; None if nothing is above the gate.
        """
        complete = self._complete_energies()
        remaining = np.maximum(complete - energies[: len(complete)], 0.0) * 10.0 ** (gain_db / 10.0)
        return _integrated(self._mean_squares(remaining, MOMENTARY_HOPS))

    def _complete_energies(self) -> FloatArray:
        """Returns the energies of the complete hops."""
        return np.frombuffer(self._energies, dtype=np.float64) if self._energies else np.empty(0)

    def _hop_start(self, hop: int) -> int:
        # Rounded from the exact time, so that the grid does not drift if 100 ms is not a whole number of frames.
        return hop * self._rate // HOPS_PER_SECOND

    def _hop_of(self, frame: int) -> int:
        hop = frame * HOPS_PER_SECOND // self._rate
        return hop + 1 if self._hop_start(hop + 1) <= frame else hop

    def _mean_squares(self, energies: FloatArray, hops: int, first_hop: int = 0) -> FloatArray:
        """Returns the mean square of each run of `hops` hops. `first_hop` is the number of the first one."""
        if len(energies) < hops:
            return np.empty(0)
        starts = np.arange(first_hop, first_hop + len(energies) + 1) * self._rate // HOPS_PER_SECOND
        windows = np.lib.stride_tricks.sliding_window_view(energies, hops)
        lengths = starts[hops:] - starts[:-hops]
        return np.asarray(windows.sum(axis=1) / lengths)


def warm_up() -> None:
    """Imports the libraries that the first measurement needs, which takes about half a second."""
    LoudnessMeter(48_000, 1)


def _lufs(mean_squares: FloatArray) -> FloatArray:
    # BS.1770-5 eq. 4.
    with np.errstate(divide="ignore"):
        return np.asarray(-0.691 + 10.0 * np.log10(mean_squares))


def _finite_max(series: FloatArray) -> float | None:
    maximum = float(series.max()) if len(series) else -math.inf
    return maximum if math.isfinite(maximum) else None


def _integrated(mean_squares: FloatArray) -> float | None:
    # BS.1770-5 eq. 5 to 7: the relative gate lies 10 LU below the mean of the blocks above the absolute gate.
    above = mean_squares[_lufs(mean_squares) > ABSOLUTE_GATE_LUFS]
    if not len(above):
        return None
    relative_gate = float(_lufs(above.mean())) + RELATIVE_GATE_LU
    return float(_lufs(above[_lufs(above) > relative_gate].mean()))


def _range(short_term: FloatArray) -> float | None:
    # EBU Tech 3342, section 3: the same gates, but -20 LU for the relative one, then the span of two quantiles.
    above = short_term[short_term >= ABSOLUTE_GATE_LUFS]
    if not len(above):
        return None
    gate = 10.0 * math.log10(float(np.mean(10.0 ** (above / 10.0)))) + RANGE_RELATIVE_GATE_LU
    ranked = np.sort(above[above >= gate])
    low, high = (ranked[round((len(ranked) - 1) * quantile)] for quantile in (RANGE_LOW, RANGE_HIGH))
    return float(high - low)
