"""Estimates the tempo from the autocorrelation of an onset envelope, at a lag of one beat and of whole bars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export_service.dsp.arrays import FloatArray, Samples

MIN_BPM, MAX_BPM = 40.0, 240.0
CANDIDATES = 1200
"""The number of tempi that are tried, 0.15 % apart."""
TEMPO_STEP = (MAX_BPM / MIN_BPM) ** (1.0 / (CANDIDATES - 1))
"""Ratio of a tempo that is tried to the one below."""
MARGIN_CANDIDATES = 3
"""How many more are tried at each end, because a tempo is recognized only if its neighbours fit less well."""
METRES = (((1, 2, 4, 8), 1.0), ((1, 2, 3, 6), 0.9))
"""After how many beats music repeats, in duple and in triple metre, and the weight of each metre."""
PRIOR_BPM, PRIOR_OCTAVES = 120.0, 0.9
"""Centre and standard deviation of the log-normal prior."""
HINT_OCTAVES = 0.3
"""Standard deviation of the prior if a tempo was requested: it excludes half and double, but not a few per cent."""
LOCAL_MEAN_SECONDS = 0.4
"""An onset has to exceed the mean over this time around it."""
BLUR_SECONDS = 0.03
"""Standard deviation of the timing of human players, which the estimate tolerates."""
SECTION_FRAMES = 16_384
"""Onset frames that are correlated at once: about five minutes."""
UPSAMPLING = 4
"""The autocorrelation has this many lags per onset frame."""
MAX_LAG_SECONDS = 8 * 60.0 / MIN_BPM
MAX_LAG_SHARE = 0.75
"""The longest lag, and its longest share of the signal; beyond it too little of the signal overlaps itself."""
MIN_CONFIDENCE = 0.1
"""Noise reaches about half of this."""


@dataclass(frozen=True)
class Tempo:
    """The tempo of a signal."""

    bpm: float
    confidence: float
    """0 to 1: how similar the music is to itself one beat and some bars later."""
    alternative_bpm: float
    """Half or double `bpm`: the second most likely tempo for a listener to tap."""


def estimate_tempo(onsets: Samples, rate_hz: float, hint_bpm: float = 0.0) -> Tempo | None:
    """Estimates the tempo from an onset envelope [n]; None if nothing repeats. `hint_bpm` is the requested tempo, 0 if
    there was none.
    """
    fit = fit_tempi(onsets, rate_hz, hint_bpm)
    if fit is None:
        return None
    bpm, metrical, score = fit
    step = TEMPO_STEP
    peaks = np.flatnonzero((score[1:-1] > score[:-2]) & (score[1:-1] >= score[2:])) + 1
    if not len(peaks):
        return None
    best = int(peaks[np.argmax(score[peaks])])
    confidence = float(min(1.0, metrical[best]))
    if confidence < MIN_CONFIDENCE:
        return None
    # The vertex of the parabola through three candidates, which are evenly spaced on a logarithmic scale.
    left, peak, right = score[best - 1 : best + 2]
    vertex_bpm = float(bpm[best] * step ** (0.5 * (left - right) / (left - 2.0 * peak + right)))
    tempo_bpm = min(max(vertex_bpm, MIN_BPM), MAX_BPM)
    others = [tempo_bpm * factor for factor in (0.5, 2.0) if MIN_BPM <= tempo_bpm * factor <= MAX_BPM]
    alternative = max(others, key=lambda other: score[np.abs(np.log2(bpm / other)) < 0.03].max())
    return Tempo(tempo_bpm, confidence, alternative)


def fit_tempi(
    onsets: Samples, rate_hz: float, hint_bpm: float = 0.0
) -> tuple[FloatArray, FloatArray, FloatArray] | None:
    """Returns tempi that are evenly spaced on a logarithmic scale, how similar the music is to itself one beat and some
    bars later at each of them, and that weighted by how likely a listener taps it: [tempi] each. None if nothing can
    repeat.
    """
    max_lag_seconds = min(MAX_LAG_SHARE * len(onsets) / rate_hz, MAX_LAG_SECONDS)
    if max_lag_seconds <= 60.0 / MAX_BPM or not onsets.any():
        return None
    similarity = _self_similarity(onsets, rate_hz)
    bpm = MIN_BPM * TEMPO_STEP ** np.arange(-MARGIN_CANDIDATES, CANDIDATES + MARGIN_CANDIDATES)
    metrical = _metrical_similarity(similarity, rate_hz * UPSAMPLING, max_lag_seconds, bpm)
    return bpm, metrical, metrical * _prior(bpm, hint_bpm)


def _self_similarity(onsets: Samples, rate_hz: float) -> FloatArray:
    """Returns the autocorrelation up to MAX_LAG_SECONDS, with UPSAMPLING lags per onset frame and 1 at lag 0."""
    count = len(onsets)
    salient = salient_onsets(onsets, rate_hz)
    salient -= salient.mean()
    lags = _autocorrelation(salient, min(count, int(MAX_LAG_SECONDS * rate_hz) + 2))
    lags /= lags[0] * (1.0 - np.arange(len(lags)) / count)
    # Interpolates by padding the spectrum of one period, which consists of the lags on both sides of 0.
    period = np.concatenate([lags, lags[:0:-1]])
    upsampled = np.fft.irfft(np.fft.rfft(period), UPSAMPLING * len(period)) * UPSAMPLING
    return np.asarray(upsampled[: UPSAMPLING * (len(lags) - 1) + 1])


def _autocorrelation(signal: Samples, lags: int) -> FloatArray:
    """Returns the sum over sections, so that an hour takes no more memory than a few minutes: [lags]."""
    total = np.zeros(lags)
    for start in range(0, len(signal), SECTION_FRAMES):
        section, overlap = signal[start : start + SECTION_FRAMES], signal[start : start + SECTION_FRAMES + lags]
        # Room for all lags, however short the last section is, and for the negative ones beyond them.
        size = 1 << (len(section) + lags).bit_length()
        total += np.fft.irfft(np.fft.rfft(section, size).conj() * np.fft.rfft(overlap, size), size)[:lags]
    return total


def salient_onsets(onsets: Samples, rate_hz: float, blur_seconds: float = BLUR_SECONDS) -> Samples:
    """Returns what exceeds the mean around it, blurred: [n], where the largest onset is 1, so that no product of two
    underflows. Works in sections, like `_autocorrelation`.
    """
    largest = onsets.max()
    reach = round(LOCAL_MEAN_SECONDS / 2 * rate_hz)
    deviation = blur_seconds * rate_hz
    blur_reach = round(4 * deviation)
    blur = np.exp(-0.5 * (np.arange(-blur_reach, blur_reach + 1) / deviation) ** 2)
    salient = np.empty(len(onsets), dtype=np.float32)
    for start in range(0, len(onsets), SECTION_FRAMES):
        end = min(start + SECTION_FRAMES, len(onsets))
        first, last = start - blur_reach - reach, end + blur_reach + reach
        around = np.pad(onsets[max(first, 0) : last] / largest, (max(-first, 0), max(last - len(onsets), 0)))
        sums = np.cumsum(np.pad(around, (1, 0)), dtype=np.float64)
        width = 2 * reach + 1
        excess = np.maximum(0.0, around[reach : len(around) - reach] - (sums[width:] - sums[:-width]) / width)
        salient[start:end] = np.convolve(excess, blur, mode="valid")
    return salient


def _metrical_similarity(
    similarity: FloatArray, lags_per_second: float, max_lag_seconds: float, bpm: FloatArray
) -> FloatArray:
    """Returns the mean self-similarity at the beats of the best-fitting metre, for each tempo: [tempi]."""
    best = np.full(len(bpm), -1.0)
    for metre, weight in METRES:
        seconds = np.outer(metre, 60.0 / bpm)  # [beats, tempi]
        fits = seconds <= max_lag_seconds  # A short signal is not compared at the later beats.
        values = np.interp(seconds * lags_per_second, np.arange(len(similarity)), similarity)
        best = np.maximum(best, weight * (values * fits).sum(axis=0) / np.maximum(fits.sum(axis=0), 1))
    return best


def _prior(bpm: FloatArray, hint_bpm: float) -> FloatArray:
    centre, octaves = (hint_bpm, HINT_OCTAVES) if hint_bpm else (PRIOR_BPM, PRIOR_OCTAVES)
    return np.asarray(np.exp(-0.5 * ((np.log2(bpm) - np.log2(centre)) / octaves) ** 2))
