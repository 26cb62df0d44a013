"""Tempo, from how an onset envelope repeats itself: its autocorrelation after a beat and after whole bars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from export_service.features import Samples

Series = npt.NDArray[np.float64]

LOWEST_BPM, HIGHEST_BPM = 40.0, 240.0
CANDIDATES = 1200
"""Tempi that are tried, 0.15 % apart."""
METRES = (((1, 2, 4, 8), 1.0), ((1, 2, 3, 6), 0.9))
"""After how many beats music repeats, in twos and in threes, and how readily that is believed."""
USUAL_BPM, USUAL_OCTAVES = 120.0, 0.9
"""Centre and standard deviation of the log-normal prior."""
HINT_OCTAVES = 0.3
"""Standard deviation of the prior where a tempo was asked for: half and double are out, a few per cent are not."""
LOCAL_SECONDS = 0.4
"""Over this an onset has to stand out."""
BLUR_SECONDS = 0.03
"""Standard deviation of a hand's inaccuracy, which does not make a beat less of one."""
FINER = 4
"""The autocorrelation is read at this many points an onset frame."""
LONGEST_SHARE = 0.75
"""Of the signal's length: beyond this lag too little of it overlaps itself."""
LEAST_CONFIDENCE = 0.1
"""Noise reaches about half of it."""


@dataclass(frozen=True)
class Tempo:
    """How fast the beat goes."""

    bpm: float
    confidence: float
    """0 to 1: how alike the music is to itself a beat and some bars later."""
    alternative_bpm: float
    """Half or double: where listeners would tap if not at `bpm`."""


def tempo(onsets: Samples, rate_hz: float, hint_bpm: float = 0.0) -> Tempo | None:
    """Of an onset envelope [n]; None where nothing repeats. `hint_bpm` is what was asked for, 0 if nothing was."""
    similarity, longest_seconds = _self_similarity(onsets, rate_hz)
    if longest_seconds <= 60.0 / HIGHEST_BPM:
        return None
    bpm = np.geomspace(LOWEST_BPM, HIGHEST_BPM, CANDIDATES)
    likeness = _likeness(similarity, rate_hz * FINER, longest_seconds, bpm)
    score = likeness * _prior(bpm, hint_bpm)
    peaks = np.flatnonzero((score[1:-1] > score[:-2]) & (score[1:-1] >= score[2:])) + 1
    if not len(peaks):
        return None
    best = int(peaks[np.argmax(score[peaks])])
    confidence = float(min(1.0, likeness[best]))
    if confidence < LEAST_CONFIDENCE:
        return None
    # The vertex of the parabola through three candidates, which lie evenly on a logarithmic scale.
    left, peak, right = score[best - 1 : best + 2]
    found = float(bpm[best] * (bpm[1] / bpm[0]) ** (0.5 * (left - right) / (left - 2.0 * peak + right)))
    others = [found * factor for factor in (0.5, 2.0) if LOWEST_BPM <= found * factor <= HIGHEST_BPM]
    alternative = max(others, key=lambda other: score[np.abs(np.log2(bpm / other)) < 0.03].max())
    return Tempo(found, confidence, alternative)


def _self_similarity(onsets: Samples, rate_hz: float) -> tuple[Series, float]:
    """Autocorrelation, FINER lags an onset frame, 1 at lag 0; and the seconds up to which it means something."""
    from scipy.fft import irfft, next_fast_len, rfft

    count = len(onsets)
    if count < 2:
        return np.zeros(1), 0.0
    sharp = _standing_out(onsets.astype(np.float64), rate_hz)
    if not sharp.any():
        return np.zeros(1), 0.0
    sharp -= sharp.mean()
    size = next_fast_len(2 * count, real=True)
    spectrum = rfft(sharp, size)
    # Padding the spectrum reads the autocorrelation between its points.
    power = spectrum.real**2 + spectrum.imag**2
    lags = irfft(power, size * FINER)[: count * FINER]
    lags /= lags[0] * (1.0 - np.arange(len(lags)) / len(lags))
    longest = min(LONGEST_SHARE * count / rate_hz, 8 * 60.0 / LOWEST_BPM)
    return lags[: int(longest * rate_hz * FINER) + 2], longest


def _standing_out(onsets: Series, rate_hz: float) -> Series:
    """What exceeds the mean around it, blurred."""
    from scipy.ndimage import gaussian_filter1d, uniform_filter1d

    excess = np.maximum(0.0, onsets - uniform_filter1d(onsets, round(LOCAL_SECONDS * rate_hz) | 1, mode="constant"))
    return np.asarray(gaussian_filter1d(excess, BLUR_SECONDS * rate_hz, mode="constant"))


def _likeness(similarity: Series, lags_per_second: float, longest_seconds: float, bpm: Series) -> Series:
    """Mean self-similarity after the beats of the metre that suits it best, for each tempo."""
    best = np.full(len(bpm), -1.0)
    for metre, belief in METRES:
        seconds = np.outer(metre, 60.0 / bpm)  # [beats, tempi]
        fits = seconds <= longest_seconds  # A short signal leaves the later beats out.
        read = np.interp(seconds * lags_per_second, np.arange(len(similarity)), similarity)
        best = np.maximum(best, belief * (read * fits).sum(axis=0) / np.maximum(fits.sum(axis=0), 1))
    return best


def _prior(bpm: Series, hint_bpm: float) -> Series:
    centre, octaves = (hint_bpm, HINT_OCTAVES) if hint_bpm else (USUAL_BPM, USUAL_OCTAVES)
    return np.asarray(np.exp(-0.5 * (np.log2(bpm / centre) / octaves) ** 2))
