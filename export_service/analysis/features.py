"""Extracts the features that tempo and key are estimated from while the audio arrives: an onset envelope and a chroma.

Both come from short spectra of the mean of the channels at a reduced sample rate. Memory use grows by 60 to 330 bytes
per second of audio.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from export_service.analysis.reduced_signal import BLOCK, OVERLAP, ReducedSignal
from export_service.dsp.arrays import FloatArray, Samples

ONSET_HOP, ONSET_FRAME = 192, 512
"""Samples at the reduced rate. At 10.7 kHz there is an onset value every 18 ms, from a spectrum over 48 ms."""
FLUX_LAG = 2
"""Onset frames between the two spectra that are compared."""
BLOCKS_PER_TABLE = 128
"""The onsets of this many blocks, about five minutes, are kept in one array, so that no array has to grow."""
CHROMA_HOP, CHROMA_FRAME = 2048, 4096
MAX_ONSET_HZ = 5000.0
NARROW_BANDS, WIDE_BANDS = 12, 24
"""Bands of one spectral line each, and above them bands whose edges have a constant ratio."""
FLOOR_POWER = 1e-7
"""Added to the power of a band, where full scale is 1, so that sounds 70 dB below full scale give no onsets."""
CHROMA_RANGE_HZ = (40.0, 1000.0)
"""The range of fundamental tones. Above it overtones dominate, which belong to other keys."""
BINS_PER_SEMITONE = 3
"""Makes the chroma robust to an instrument that is out of tune by up to half a semitone."""
CHROMA_BINS = 12 * BINS_PER_SEMITONE
MIN_PEAK_POWER = 1e-10
"""Spectral peaks 100 dB below full scale are ignored."""
FLOOR_AMPLITUDE = 1e-3
"""Frames quieter than this have less weight in the chroma."""


@dataclass(frozen=True)
class Features:
    """The features of a whole signal."""

    onset_rate_hz: float
    onsets: Samples
    """[n]: spectral flux, the mean rise of the log power of all bands, in nepers."""
    chroma: FloatArray
    """[36]: the strength of each third of a semitone over all octaves, starting with the three of C."""
    seconds: float


class FeatureExtractor(ReducedSignal):
    """Extracts features of a signal fed in pieces of any size."""

    def __init__(self, sample_rate_hz: int) -> None:
        super().__init__(sample_rate_hz)
        self._last_bands = np.full((FLUX_LAG, NARROW_BANDS + WIDE_BANDS), np.log(FLOOR_POWER), dtype=np.float32)
        self._onsets: list[Samples] = []
        """Tables of [BLOCKS_PER_TABLE, BLOCK // ONSET_HOP], the last of which may be incomplete."""
        self._blocks = 0
        self._chroma = np.zeros(CHROMA_BINS)

    def finish(self) -> Features:
        """Returns the features of everything that was fed. `feed` must not be called afterwards."""
        self._process_rest()
        count = self._frames // (ONSET_HOP * self._factor)
        onsets = np.concatenate(self._onsets).ravel()[:count] if count else np.empty(0, dtype=np.float32)
        return Features(self._reduced_rate / ONSET_HOP, onsets, self._chroma, self._frames / self._sample_rate_hz)

    def _process_block(self, low: Samples) -> None:
        if self._blocks % BLOCKS_PER_TABLE == 0:
            self._onsets.append(np.empty((BLOCKS_PER_TABLE, BLOCK // ONSET_HOP), dtype=np.float32))
        flux = self._spectral_flux(low[OVERLAP + ONSET_HOP - ONSET_FRAME :])
        self._onsets[-1][self._blocks % BLOCKS_PER_TABLE] = flux
        self._blocks += 1
        self._chroma += chroma_frames(low, self._reduced_rate).sum(axis=0)

    def _spectral_flux(self, signal: Samples) -> Samples:
        """Returns the spectral flux: the rise of each band's log power, averaged over the bands."""
        edges, widths = _band_edges(self._reduced_rate)
        power = power_spectrum(signal, ONSET_FRAME, ONSET_HOP, int(edges[-1]))
        bands = np.log(np.add.reduceat(power, edges[:-1], axis=1) / widths + np.float32(FLOOR_POWER))
        bands = np.concatenate([self._last_bands, bands])
        self._last_bands = bands[-FLUX_LAG:]
        rise: Samples = np.maximum(bands[FLUX_LAG:] - bands[:-FLUX_LAG], 0.0).mean(axis=1, dtype=np.float32)
        return rise


def power_spectrum(signal: Samples, frame: int, hop: int, lines: int) -> Samples:
    """Returns the power of the lowest spectral lines of each frame, where a full-scale sine has 1: [frames, lines]."""
    from scipy.fft import rfft  # It transforms several frames at a time, NumPy one by one.

    frames = np.lib.stride_tricks.sliding_window_view(signal, frame)[::hop]
    spectrum = rfft(frames * _window(frame), axis=1)[:, :lines]
    return np.asarray(spectrum.real**2 + spectrum.imag**2, dtype=np.float32)


@cache
def _window(frame: int) -> Samples:
    """Returns a Hann window, scaled so that a full-scale sine on a spectral line has amplitude 1."""
    window = np.hanning(frame)
    return np.asarray(window * 2.0 / window.sum(), dtype=np.float32)


@cache
def _band_edges(rate: float) -> tuple[npt.NDArray[np.intp], Samples]:
    """Returns the first lines of the bands and the line after the last one [bands + 1], and the number of lines of each
    band [bands].
    """
    lines = ONSET_FRAME // 2
    last = min(lines, int(MAX_ONSET_HZ / rate * ONSET_FRAME))
    wide = np.geomspace(NARROW_BANDS + 1, last, WIDE_BANDS + 1).round().astype(np.intp)
    edges = np.concatenate([np.arange(1, NARROW_BANDS + 1), wide])
    return edges, np.diff(edges).astype(np.float32)


def chroma_frames(signal: Samples, rate: float, frame_size: int = CHROMA_FRAME, hop: int = CHROMA_HOP) -> FloatArray:
    """Returns the amplitudes of the spectral peaks by pitch class, with equal weight for all frames: [frames, 36]."""
    first, last = (int(hz / rate * frame_size) for hz in CHROMA_RANGE_HZ)
    power = power_spectrum(signal, frame_size, hop, last + 1)
    below, here, above = power[:, first - 1 : -2], power[:, first:-1], power[:, first + 1 :]
    frame, line = np.nonzero((here > below) & (here >= above) & (here > MIN_PEAK_POWER))
    left, peak, right = (np.log(values[frame, line] + MIN_PEAK_POWER) for values in (below, here, above))
    # The vertex of the parabola through the three log powers.
    offset = 0.5 * (left - right) / np.minimum(left - 2.0 * peak + right, -1e-6)
    hz = (first + line + offset) * (rate / frame_size)
    bins = np.round(np.log2(hz / 440.0) * CHROMA_BINS + 9 * BINS_PER_SEMITONE + 1).astype(np.intp) % CHROMA_BINS
    height = np.sqrt(here[frame, line])
    chroma = np.bincount(frame * CHROMA_BINS + bins, height, len(here) * CHROMA_BINS).reshape(-1, CHROMA_BINS)
    weighted: FloatArray = chroma / (np.linalg.norm(chroma, axis=1, keepdims=True) + FLOOR_AMPLITUDE)
    return weighted
