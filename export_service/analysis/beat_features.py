"""Extracts the features that beats are found by: onset envelopes with a fine time resolution, and a chroma over time.

They need more memory than those for tempo and key, about 2 kB per second of audio, so they are extracted on request.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from export_service.analysis.features import BINS_PER_SEMITONE, chroma_frames, power_spectrum
from export_service.analysis.reduced_signal import OVERLAP, ReducedSignal
from export_service.dsp.arrays import Samples

HOP, FRAME = 64, 256
"""Samples at the reduced rate. At 10.7 kHz there is an onset value every 6 ms, from a spectrum over 24 ms."""
LAG = 2
"""Onset frames between the two spectra that are compared."""
CHROMA_HOP, CHROMA_FRAME = 512, 2048
MAX_HZ, MAX_BASS_HZ = 5000.0, 160.0
BANDS = 24
FLOOR_POWER = 1e-6
"""Added to the power of a band, where full scale is 1, so that sounds 60 dB below full scale give no onsets."""
MIN_RISE = 0.03
"""A rise of the log power by less than this, a quarter of a decibel, is no onset."""
DELAY_SAMPLES = 8 + FRAME // 2 - HOP
"""How much later, at the reduced rate, an onset is than the end of the first spectrum that shows it rising: the
decimator's delay, and the time until an attack reaches the middle of the window."""


@dataclass(frozen=True)
class BeatFeatures:
    """The features of a whole signal."""

    rate_hz: float
    """Onset values per second."""
    onsets: Samples
    """[n]: the mean rise of the log power of all bands, in nepers."""
    bass: Samples
    """[n]: the same for the bands below 160 Hz, where bass drums and basses begin."""
    first_onset_seconds: float
    """The time of the first onset value."""
    chroma_rate_hz: float
    chroma: Samples
    """[m, 12]: the strength of each pitch class over time, starting with C."""
    seconds: float


class BeatFeatureExtractor(ReducedSignal):
    """Extracts features of a signal fed in pieces of any size."""

    def __init__(self, sample_rate_hz: int) -> None:
        super().__init__(sample_rate_hz)
        edges, _ = _band_edges(self._reduced_rate)
        self._last_bands = np.full((LAG, len(edges) - 1), np.log(FLOOR_POWER), dtype=np.float32)
        self._onsets: list[Samples] = []
        self._bass: list[Samples] = []
        self._chroma: list[Samples] = []

    def finish(self) -> BeatFeatures:
        """Returns the features of everything that was fed. `feed` must not be called afterwards."""
        self._process_rest()
        count = -(-self._frames // (HOP * self._factor))
        chroma_count = -(-self._frames // (CHROMA_HOP * self._factor))
        empty = np.empty(0, dtype=np.float32)
        return BeatFeatures(
            rate_hz=self._reduced_rate / HOP,
            onsets=np.concatenate([empty, *self._onsets])[:count],
            bass=np.concatenate([empty, *self._bass])[:count],
            first_onset_seconds=-DELAY_SAMPLES / self._reduced_rate,
            chroma_rate_hz=self._reduced_rate / CHROMA_HOP,
            chroma=np.concatenate([empty.reshape(0, 12), *self._chroma])[:chroma_count],
            seconds=self._frames / self._sample_rate_hz,
        )

    def _process_block(self, low: Samples) -> None:
        edges, widths = _band_edges(self._reduced_rate)
        power = power_spectrum(low[OVERLAP + HOP - FRAME :], FRAME, HOP, int(edges[-1]))
        bands = np.log(np.add.reduceat(power, edges[:-1], axis=1) / widths + np.float32(FLOOR_POWER))
        bands = np.concatenate([self._last_bands, bands])
        self._last_bands = bands[-LAG:]
        rise = np.maximum(bands[LAG:] - bands[:-LAG] - np.float32(MIN_RISE), 0.0)
        bass_bands = max(1, int(np.searchsorted(edges, MAX_BASS_HZ / self._reduced_rate * FRAME)))
        self._onsets.append(rise.mean(axis=1, dtype=np.float32))
        self._bass.append(rise[:, :bass_bands].mean(axis=1, dtype=np.float32))
        chroma = chroma_frames(low[OVERLAP + CHROMA_HOP - CHROMA_FRAME :], self._reduced_rate, CHROMA_FRAME, CHROMA_HOP)
        self._chroma.append(chroma.reshape(-1, 12, BINS_PER_SEMITONE).sum(axis=2, dtype=np.float32))


@cache
def _band_edges(rate: float) -> tuple[npt.NDArray[np.intp], Samples]:
    """Returns the first lines of the bands and the line after the last one [bands + 1], and the number of lines of each
    band [bands].
    """
    last = min(FRAME // 2, int(MAX_HZ / rate * FRAME))
    edges = np.unique(np.geomspace(1, last, BANDS + 1).round().astype(np.intp))
    return edges, np.diff(edges).astype(np.float32)
