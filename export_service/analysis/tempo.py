"""Tempo, from how an onset envelope repeats itself: its autocorrelation after a beat and after whole bars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from export_service.analysis.features import Samples

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
SECTION = 16_384
"""Onset frames that are correlated at once: about five minutes."""
FINER = 4
"""The autocorrelation is read at this many points an onset frame."""
LONGEST_SECONDS = 8 * 60.0 / LOWEST_BPM
LONGEST_SHARE = 0.75
"""The longest lag that is looked at, and as a share of the signal: beyond this too little of it overlaps itself."""
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
    longest_seconds = min(LONGEST_SHARE * len(onsets) / rate_hz, LONGEST_SECONDS)
    if longest_seconds <= 60.0 / HIGHEST_BPM or not onsets.any():
        return None
    similarity = _self_similarity(onsets, rate_hz)
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


def _self_similarity(onsets: Samples, rate_hz: float) -> Series:
    """Autocorrelation up to LONGEST_SECONDS, FINER lags an onset frame, 1 at lag 0."""
    count = len(onsets)
    sharp = _standing_out(onsets, rate_hz)
    sharp -= sharp.mean()
    lags = _autocorrelation(sharp, min(count, int(LONGEST_SECONDS * rate_hz) + 2))
    lags /= lags[0] * (1.0 - np.arange(len(lags)) / count)
    # The lags on both sides of 0 as one period, whose spectrum is padded: that reads between them.
    period = np.concatenate([lags, lags[:0:-1]])
    finer = np.fft.irfft(np.fft.rfft(period), FINER * len(period)) * FINER
    return np.asarray(finer[: FINER * (len(lags) - 1) + 1])


def _autocorrelation(signal: Samples, lags: int) -> Series:
    """Summed over sections, so that an hour takes no more memory than a few minutes: [lags]."""
    total = np.zeros(lags)
    for start in range(0, len(signal), SECTION):
        section, reached = signal[start : start + SECTION], signal[start : start + SECTION + lags]
        size = 1 << (len(section) + len(reached)).bit_length()
        total += np.fft.irfft(np.fft.rfft(section, size).conj() * np.fft.rfft(reached, size), size)[:lags]
    return total


def _standing_out(onsets: Samples, rate_hz: float) -> Samples:
    """What exceeds the mean around it, blurred."""
    reach = round(LOCAL_SECONDS / 2 * rate_hz)
    sums = np.cumsum(np.pad(onsets, (reach + 1, reach)), dtype=np.float64)
    excess = np.maximum(0.0, onsets - (sums[2 * reach + 1 :] - sums[: -2 * reach - 1]) / (2 * reach + 1))
    deviation = BLUR_SECONDS * rate_hz
    at = np.arange(-round(4 * deviation), round(4 * deviation) + 1)
    blur = np.exp(-0.5 * (at / deviation) ** 2)
    return np.convolve(excess, blur, mode="full")[len(at) // 2 :][: len(onsets)].astype(np.float32)


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
