"""Loudness by ITU-R BS.1770-5 and EBU Tech 3341/3342, measured while the audio arrives.

The K-weighting filters come from pyloudnorm (its "DeMan" class, which agrees with libebur128). The gating is our own,
because pyloudnorm needs the whole signal in memory.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from functools import cache

import numpy as np

from export_service.dsp.arrays import FloatArray, Samples

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
    """Measures a signal of one or two channels, fed in pieces of any size.

    Its memory grows by one number for each 100 ms.
    """

    def __init__(self, sample_rate_hz: int, channels: int) -> None:
        self._rate = sample_rate_hz
        self._dtype = np.float64 if channels == 1 else np.complex128
        """A frame is one number: two channels are filtered as real and imaginary part, which is faster than in turn."""
        self._sections = _k_weighting(sample_rate_hz).astype(self._dtype)
        self._state = np.zeros((2, 2), self._dtype)  # [biquads, taps]
        self._frames = 0
        self._energies = array("d")  # One for each complete hop.
        self._open_energy = 0.0  # Of the hop in progress.

    def feed(self, samples: Samples | FloatArray) -> FloatArray:
        """Adds the next frames [frames, channels]; returns their K-weighted power summed over channels: [frames]."""
        if not len(samples):
            return np.empty(0)
        from scipy.signal import sosfilt  # Importing it takes half a second, which would delay the start of the server.

        signal = np.ascontiguousarray(samples, dtype=np.float64).view(self._dtype)[:, 0]
        weighted, self._state = sosfilt(self._sections, signal, zi=self._state)
        # BS.1770-5 eq. 1 and 2: mean square of each channel, summed with weight 1.0 for left, right and mono.
        power = weighted.real**2 + weighted.imag**2
        first, end = self._frames, self._frames + len(samples)
        first_hop, last_hop = self._hop_of(first), self._hop_of(end - 1)
        edges = [max(self._hop_start(hop), first) - first for hop in range(first_hop, last_hop + 1)]
        sums = np.add.reduceat(power, edges)
        for hop, energy in zip(range(first_hop, last_hop + 1), sums.tolist(), strict=True):
            self._open_energy += energy
            if end >= self._hop_start(hop + 1):
                self._energies.append(self._open_energy)
                self._open_energy = 0.0
        self._frames = end
        return np.asarray(power)

    def momentary(self) -> FloatArray:
        """Returns the loudness of each complete 400 ms in LUFS, one value every 100 ms; -inf for digital silence."""
        return _lufs(self._mean_squares(self._complete_energies(), MOMENTARY_HOPS))

    def short_term(self) -> FloatArray:
        """Returns the loudness of each complete 3 s in LUFS, one value every 100 ms; -inf for digital silence."""
        return _lufs(self._mean_squares(self._complete_energies(), SHORT_TERM_HOPS))

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

    def _mean_squares(self, energies: FloatArray, hops: int) -> FloatArray:
        """Returns the mean square of each run of `hops` hops."""
        if len(energies) < hops:
            return np.empty(0)
        starts = np.arange(len(energies) + 1) * self._rate // HOPS_PER_SECOND
        windows = np.lib.stride_tricks.sliding_window_view(energies, hops)
        lengths = starts[hops:] - starts[:-hops]
        return np.asarray(windows.sum(axis=1) / lengths)


@cache
def _k_weighting(sample_rate_hz: int) -> FloatArray:
    """Returns the two biquads of BS.1770-5 Annex 1 for any sample rate, as second-order sections [2, 6]."""
    from pyloudnorm import Meter

    filters = Meter(sample_rate_hz, filter_class="DeMan")._filters.values()
    return np.array([[*stage.b, *stage.a] for stage in filters])


def warm_up() -> None:
    """Imports the libraries that the first measurement needs, which takes about half a second."""
    LoudnessMeter(48_000, 1).feed(np.zeros((1, 1), dtype=np.float32))


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
