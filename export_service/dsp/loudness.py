"""Loudness as ITU-R BS.1770-5 and EBU Tech 3341/3342 define it, measured while the audio arrives.

The K-weighting filters are pyloudnorm's (its "DeMan" class, which agrees with libebur128); the gating is our own,
because pyloudnorm needs the whole signal in memory.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
"""[frames, channels], full scale ±1.0."""
Series = npt.NDArray[np.float64]

HOPS_PER_SECOND = 10
"""Gating blocks begin every 100 ms: 400 ms with 75 % overlap (BS.1770-5), and Tech 3341's least update rate."""
MOMENTARY_HOPS = 4
SHORT_TERM_HOPS = 30
ABSOLUTE_GATE_LUFS = -70.0
RELATIVE_GATE_LU = -10.0
RANGE_RELATIVE_GATE_LU = -20.0
RANGE_LOW, RANGE_HIGH = 0.10, 0.95
"""The quantiles of short-term loudness that the range lies between (Tech 3342)."""


@dataclass(frozen=True)
class Loudness:
    """Figures of a whole signal; None where it is too short or too quiet for one."""

    integrated_lufs: float | None
    max_momentary_lufs: float | None
    max_short_term_lufs: float | None
    range_lu: float | None


class LoudnessMeter:
    """Takes in a signal of one or two channels in pieces of any size.

    What it keeps grows by one number for each 100 ms.
    """

    def __init__(self, sample_rate_hz: int, channels: int) -> None:
        self._rate = sample_rate_hz
        self._number = np.float64 if channels == 1 else np.complex128
        """A frame is one number: two channels as real and imaginary part are filtered in less time than one by one."""
        self._sections = _k_weighting(sample_rate_hz).astype(self._number)
        self._state = np.zeros((2, 2), self._number)  # [biquads, taps]
        self._frames = 0
        self._energies = array("d")  # of the hops that are complete
        self._open_energy = 0.0  # of the hop that is not

    def feed(self, samples: Samples | Series) -> Series:
        """Takes in the next frames; returns their K-weighted power, summed over the channels: [frames]."""
        if not len(samples):
            return np.empty(0)
        from scipy.signal import sosfilt  # Half a second to import: kept out of the server's start.

        signal = np.ascontiguousarray(samples, dtype=np.float64).view(self._number)[:, 0]
        weighted, self._state = sosfilt(self._sections, signal, zi=self._state)
        # BS.1770-5 eq. 1 and 2: mean square by channel, summed with weight 1.0 for left, right and mono.
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

    def momentary(self) -> Series:
        """Loudness of each complete 400 ms in LUFS, one every 100 ms; -inf for digital silence."""
        return _lufs(self._mean_squares(self._complete(), MOMENTARY_HOPS))

    def short_term(self) -> Series:
        """Loudness of each complete 3 s in LUFS, one every 100 ms; -inf for digital silence."""
        return _lufs(self._mean_squares(self._complete(), SHORT_TERM_HOPS))

    def measure(self) -> Loudness:
        """The figures of all that was taken in. A last block that is not complete does not count."""
        return Loudness(
            integrated_lufs=_integrated(self._mean_squares(self._complete(), MOMENTARY_HOPS)),
            max_momentary_lufs=_largest(self.momentary()),
            max_short_term_lufs=_largest(self.short_term()),
            range_lu=_range(self.short_term()),
        )

    def integrated_without(self, energies: Series, gain_db: float) -> float | None:
        """The integrated loudness in LUFS if so much were taken off the K-weighted energy of each 100 ms, and a gain
        applied to the rest.
        """
        complete = self._complete()
        left = np.maximum(complete - energies[: len(complete)], 0.0) * 10.0 ** (gain_db / 10.0)
        return _integrated(self._mean_squares(left, MOMENTARY_HOPS))

    def _complete(self) -> Series:
        """The energies of the hops that are complete."""
        return np.frombuffer(self._energies, dtype=np.float64) if self._energies else np.empty(0)

    def _hop_start(self, hop: int) -> int:
        # Rounded from the exact time: the grid does not drift where 100 ms is not a whole number of frames.
        return hop * self._rate // HOPS_PER_SECOND

    def _hop_of(self, frame: int) -> int:
        hop = frame * HOPS_PER_SECOND // self._rate
        return hop + 1 if self._hop_start(hop + 1) <= frame else hop

    def _mean_squares(self, energies: Series, hops: int) -> Series:
        """Of each run of so many hops."""
        if len(energies) < hops:
            return np.empty(0)
        starts = np.arange(len(energies) + 1) * self._rate // HOPS_PER_SECOND
        windows = np.lib.stride_tricks.sliding_window_view(energies, hops)
        lengths = starts[hops:] - starts[:-hops]
        return np.asarray(windows.sum(axis=1) / lengths)


@cache
def _k_weighting(sample_rate_hz: int) -> Series:
    """The two biquads of BS.1770-5 Annex 1 for any rate, as second-order sections [2, 6]."""
    from pyloudnorm import Meter

    filters = Meter(sample_rate_hz, filter_class="DeMan")._filters.values()
    return np.array([[*stage.b, *stage.a] for stage in filters])


def warm_up() -> None:
    """Imports what the first measurement needs."""
    LoudnessMeter(48_000, 1).feed(np.zeros((1, 1), dtype=np.float32))


def _lufs(mean_squares: Series) -> Series:
    # BS.1770-5 eq. 4.
    with np.errstate(divide="ignore"):
        return np.asarray(-0.691 + 10.0 * np.log10(mean_squares))


def _largest(series: Series) -> float | None:
    largest = float(series.max()) if len(series) else -math.inf
    return largest if math.isfinite(largest) else None


def _integrated(mean_squares: Series) -> float | None:
    # BS.1770-5 eq. 5 to 7: the mean of the blocks over -70 LUFS sets the second gate 10 LU below itself.
    above = mean_squares[_lufs(mean_squares) > ABSOLUTE_GATE_LUFS]
    if not len(above):
        return None
    relative_gate = float(_lufs(above.mean())) + RELATIVE_GATE_LU
    return float(_lufs(above[_lufs(above) > relative_gate].mean()))


def _range(short_term: Series) -> float | None:
    # EBU Tech 3342, section 3: the same gates with -20 LU, then the spread between two quantiles.
    above = short_term[short_term >= ABSOLUTE_GATE_LUFS]
    if not len(above):
        return None
    gate = 10.0 * math.log10(float(np.mean(10.0 ** (above / 10.0)))) + RANGE_RELATIVE_GATE_LU
    ranked = np.sort(above[above >= gate])
    low, high = (ranked[round((len(ranked) - 1) * quantile)] for quantile in (RANGE_LOW, RANGE_HIGH))
    return float(high - low)
