"""What tempo and key are read from, gathered while the audio arrives: an onset envelope and a chroma.

Both come from short spectra of the channels' mean at a low rate. What is kept grows by 60 to 330 bytes a second.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
Series = npt.NDArray[np.float64]

LOWEST_RATE_HZ = 10_000
"""The rate is brought down by a whole factor, but not below this: nothing above 5 kHz is needed."""
ROW = 16
"""Samples of the low rate that a row of the decimator's matrix product gives."""
PRODUCT_SIZE = 1 << 18
"""Multiplications at once: beyond this OpenBLAS uses threads, which stall on a busy machine."""
ONSET_HOP, ONSET_FRAME = 192, 512
"""Samples of the low rate: an onset value every 18 ms of a spectrum over 48 ms at 10.7 kHz."""
FLUX_LAG = 2
"""Onset frames between the two spectra that are compared."""
CHROMA_HOP, CHROMA_FRAME = 2048, 4096
BLOCK = 6 * CHROMA_HOP
"""Samples of the low rate that are looked at together: about a second. A whole number of either hop."""
HIGHEST_ONSET_HZ = 5000.0
NARROW_BANDS, WIDE_BANDS = 12, 24
"""Bands of one spectral line each, and above them bands of a constant ratio."""
LOUDEST = 1e6
"""Of full scale: float32 overflows in the power of what is absurdly loud."""
FLOOR_POWER = 1e-7
"""Added to a band's power, of full scale 1: what lies 70 dB below full scale makes no onsets."""
CHROMA_RANGE_HZ = (40.0, 1000.0)
"""Where the tones themselves lie; above there are more and more overtones, which belong to other keys."""
BINS_PER_SEMITONE = 3
"""So that an instrument that is out of tune by up to half a semitone is still heard right."""
CHROMA_BINS = 12 * BINS_PER_SEMITONE
LEAST_PEAK_POWER = 1e-10
"""A spectral peak 100 dB below full scale is none."""
FLOOR_AMPLITUDE = 1e-3
"""Frames quieter than this count for less in the chroma."""


@dataclass(frozen=True)
class Features:
    """Of a whole signal."""

    onset_rate_hz: float
    onsets: Samples
    """[n]: how much louder all bands together have become, in nepers of power."""
    chroma: Series
    """[36]: how strongly each third of a semitone is heard, over all octaves; the three of C first."""
    seconds: float


class FeatureExtractor:
    """Takes in a signal in pieces of any size.

    It works on blocks of one size whatever the pieces were: the same audio gives the same features to the last bit.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self._sample_rate_hz = sample_rate_hz
        self._factor = max(1, sample_rate_hz // LOWEST_RATE_HZ)
        self._rate = sample_rate_hz / self._factor
        history = _decimator(self._factor).shape[0] - ROW * self._factor
        self._mono = np.zeros(history + BLOCK * self._factor, dtype=np.float32)
        self._filled = self._history = history
        self._low = np.zeros(CHROMA_FRAME - CHROMA_HOP + BLOCK, dtype=np.float32)
        self._bands = np.full((FLUX_LAG, NARROW_BANDS + WIDE_BANDS), np.log(FLOOR_POWER), dtype=np.float32)
        self._onsets = array("f")
        self._chroma = np.zeros(CHROMA_BINS)
        self._frames = 0

    def feed(self, samples: Samples) -> None:
        """Takes in the next frames: [frames, channels], finite."""
        self._frames += len(samples)
        while len(samples):
            taken = samples[: len(self._mono) - self._filled]
            mono = self._mono[self._filled : self._filled + len(taken)]
            np.add(taken[:, 0], taken[:, -1], out=mono)  # Of mono the one channel twice.
            mono *= 0.5
            np.clip(mono, -LOUDEST, LOUDEST, out=mono)
            self._filled += len(taken)
            samples = samples[len(taken) :]
            if self._filled == len(self._mono):
                self._take_block()

    def finish(self) -> Features:
        """The features of all that was taken in; nothing may be fed after."""
        if self._filled > self._history:
            self._mono[self._filled :] = 0.0
            self._take_block()
        count = self._frames // (ONSET_HOP * self._factor)
        onsets = np.frombuffer(self._onsets, dtype=np.float32)[:count] if count else np.empty(0, dtype=np.float32)
        return Features(self._rate / ONSET_HOP, onsets, self._chroma, self._frames / self._sample_rate_hz)

    def _take_block(self) -> None:
        low, kept = self._low, len(self._low) - BLOCK
        low[:kept] = low[BLOCK:]
        low[kept:] = _decimated(self._mono, self._factor)
        self._mono[: self._history] = self._mono[len(self._mono) - self._history :]
        self._filled = self._history
        self._onsets.frombytes(self._flux(low[kept + ONSET_HOP - ONSET_FRAME :]).tobytes())
        self._chroma += _chroma(low, self._rate)

    def _flux(self, signal: Samples) -> Samples:
        """Spectral flux: the rise of each band's log power, summed over the bands."""
        edges, widths = _bands(self._rate)
        power = _power(signal, ONSET_FRAME, ONSET_HOP, int(edges[-1]))
        bands = np.log(np.add.reduceat(power, edges[:-1], axis=1) / widths + np.float32(FLOOR_POWER))
        bands = np.concatenate([self._bands, bands])
        self._bands = bands[-FLUX_LAG:]
        rise: Samples = np.maximum(bands[FLUX_LAG:] - bands[:-FLUX_LAG], 0.0).mean(axis=1, dtype=np.float32)
        return rise


def _decimated(signal: Samples, factor: int) -> Samples:
    """Every `factor`-th sample of the signal without what lies above half the new rate: [BLOCK]."""
    if factor == 1:
        return signal
    matrix = _decimator(factor)
    rows = np.lib.stride_tricks.sliding_window_view(signal, len(matrix))[:: ROW * factor]
    at_once = max(1, PRODUCT_SIZE // matrix.size)
    products = [rows[start : start + at_once] @ matrix for start in range(0, len(rows), at_once)]
    return np.concatenate(products).ravel()


@cache
def _decimator(factor: int) -> Samples:
    """A Kaiser-windowed sinc as a matrix [(ROW - 1) * factor + taps, ROW] that gives ROW samples at once."""
    taps = 16 * factor + 1 if factor > 1 else 1
    n = np.arange(taps) - (taps - 1) / 2
    prototype = np.sinc(0.9 * n / factor) * np.kaiser(taps, 5.0)
    matrix = np.zeros(((ROW - 1) * factor + taps, ROW), dtype=np.float32)
    for column in range(ROW):
        matrix[column * factor : column * factor + taps, column] = prototype / prototype.sum()
    return matrix


def _power(signal: Samples, frame: int, hop: int, lines: int) -> Samples:
    """Of each frame's lowest spectral lines, a full-scale sine being 1: [frames, lines]."""
    from scipy.fft import rfft  # Of several frames at a time, where NumPy takes one by one.

    frames = np.lib.stride_tricks.sliding_window_view(signal, frame)[::hop]
    spectrum = rfft(frames * _window(frame), axis=1)[:, :lines]
    return np.asarray(spectrum.real**2 + spectrum.imag**2, dtype=np.float32)


@cache
def _window(frame: int) -> Samples:
    """Hann's, scaled so that a full-scale sine on a line has amplitude 1."""
    window = np.hanning(frame)
    return np.asarray(window * 2.0 / window.sum(), dtype=np.float32)


@cache
def _bands(rate: float) -> tuple[npt.NDArray[np.intp], Samples]:
    """First lines of the bands and the line after the last [bands + 1], and how many lines each has [bands]."""
    lines = ONSET_FRAME // 2
    last = min(lines, int(HIGHEST_ONSET_HZ / rate * ONSET_FRAME))
    wide = np.geomspace(NARROW_BANDS + 1, last, WIDE_BANDS + 1).round().astype(np.intp)
    edges = np.concatenate([np.arange(1, NARROW_BANDS + 1), wide])
    return edges, np.diff(edges).astype(np.float32)


def _chroma(signal: Samples, rate: float) -> Series:
    """The spectral peaks' amplitudes by pitch class, every frame with the same weight: [36]."""
    first, last = (int(hz / rate * CHROMA_FRAME) for hz in CHROMA_RANGE_HZ)
    power = _power(signal, CHROMA_FRAME, CHROMA_HOP, last + 1)
    below, here, above = power[:, first - 1 : -2], power[:, first:-1], power[:, first + 1 :]
    frame, line = np.nonzero((here > below) & (here >= above) & (here > LEAST_PEAK_POWER))
    left, peak, right = (np.log(values[frame, line] + LEAST_PEAK_POWER) for values in (below, here, above))
    # The vertex of the parabola through the three log powers.
    offset = 0.5 * (left - right) / np.minimum(left - 2.0 * peak + right, -1e-6)
    hz = (first + line + offset) * (rate / CHROMA_FRAME)
    bins = np.round(np.log2(hz / 440.0) * CHROMA_BINS + 9 * BINS_PER_SEMITONE + 1).astype(np.intp) % CHROMA_BINS
    height = np.sqrt(here[frame, line])
    chroma = np.bincount(frame * CHROMA_BINS + bins, height, len(here) * CHROMA_BINS).reshape(-1, CHROMA_BINS)
    total: Series = (chroma / (np.linalg.norm(chroma, axis=1, keepdims=True) + FLOOR_AMPLITUDE)).sum(axis=0)
    return total
