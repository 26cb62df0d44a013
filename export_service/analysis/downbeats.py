"""Finds which beats begin a bar: those at which the harmony changes and the bass enters, and before a backbeat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export_service.analysis.beat_features import BeatFeatures
from export_service.dsp.arrays import FloatArray, Samples

METRES = (4, 3)
"""Beats in a bar. Of metres that fit equally well, the first is taken."""
MIN_BARS = 2
"""With fewer, nothing shows where a bar begins."""
TRIPLE_ADVANTAGE = 0.08
"""By how much the self-similarity after three beats has to exceed that after four."""
HARMONY_WEIGHT, BASS_WEIGHT, BACKBEAT_WEIGHT, LOUD_WEIGHT = 1.0, 0.35, 0.35, 0.2
FAINT_CHROMA = 0.3
"""Beats whose chroma is weaker than this, relative to the strongest, say less about the harmony."""
ONSET_REACH_SECONDS = 0.03


@dataclass(frozen=True)
class Metre:
    """Where bars begin."""

    beats_per_bar: int
    first_downbeat: int
    """Index of the first beat that begins a bar."""
    confidence: float
    """0 to 1: how much better this first beat fits than any other."""


def find_metre(features: BeatFeatures, beats: FloatArray) -> Metre:
    """Returns the most likely metre for beats at these times in seconds from the first frame [beats]."""
    accents = _accents(features, beats)
    beats_per_bar = _beats_per_bar(features, beats)
    if len(beats) < MIN_BARS * beats_per_bar:
        return Metre(beats_per_bar, 0, 0.0)
    # The last beat belongs to the end of the piece, which often has a chord of its own.
    scores = np.array([accents[phase:-1:beats_per_bar].mean() for phase in range(beats_per_bar)])
    best = int(scores.argmax())
    second = float(np.delete(scores, best).max())
    spread = float(accents.std()) or 1.0
    bars = len(beats) / beats_per_bar
    # The mean over many bars varies less: what counts is the distance in standard errors.
    distance = (scores[best] - second) / (spread / np.sqrt(bars))
    return Metre(beats_per_bar, best, float(np.clip((distance - 1.0) / 4.0, 0.0, 1.0)))


def _accents(features: BeatFeatures, beats: FloatArray) -> FloatArray:
    """Returns how much each beat sounds like the first one of a bar: [beats]."""
    bass, onsets = (onsets_at(values, features, beats) for values in (features.bass, features.onsets))
    treble = onsets - bass
    # A snare on two and four is bright, and the bass drum is on one and three.
    backbeat = np.concatenate([treble[1:], treble[-1:]]) - treble
    harmony = harmonic_change(features, beats)
    return (
        HARMONY_WEIGHT * _standardized(harmony)
        + BASS_WEIGHT * _standardized(bass)
        + BACKBEAT_WEIGHT * _standardized(backbeat)
        + LOUD_WEIGHT * _standardized(onsets)
    )


def onsets_at(values: Samples, features: BeatFeatures, beats: FloatArray) -> FloatArray:
    """Returns the largest onset value within ONSET_REACH_SECONDS of each beat: [beats]."""
    reach = max(1, round(ONSET_REACH_SECONDS * features.rate_hz))
    frames = np.round((beats - features.first_onset_seconds) * features.rate_hz).astype(np.intp)
    padded = np.pad(values, reach)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    largest: FloatArray = windows[np.clip(frames, 0, len(values) - 1)].max(axis=1).astype(np.float64)
    return largest


def _beat_chroma(features: BeatFeatures, beats: FloatArray) -> FloatArray:
    """Returns the mean chroma of the time from each beat to the next, with norm 1 or 0: [beats, 12]."""
    ends = np.append(beats[1:], beats[-1] + (beats[-1] - beats[-2]))
    sums = np.cumsum(np.pad(features.chroma.astype(np.float64), ((1, 0), (0, 0))), axis=0)
    # Each spectrum spans 190 ms; those that begin before the beat still sound of the chord before.
    margin = 0.1
    first = np.clip(np.round((beats + margin) * features.chroma_rate_hz).astype(np.intp), 0, len(features.chroma) - 1)
    last = np.clip(np.round((ends + margin / 2) * features.chroma_rate_hz).astype(np.intp), 1, len(features.chroma))
    chroma = sums[np.maximum(last, first + 1)] - sums[first]
    norms = np.linalg.norm(chroma, axis=1, keepdims=True) / np.maximum(last - first, 1)[:, None]
    chroma = chroma / np.maximum(last - first, 1)[:, None]
    return np.asarray(chroma / np.maximum(norms, max(FAINT_CHROMA * norms.max(), 1e-9)))


def harmonic_change(features: BeatFeatures, beats: FloatArray) -> FloatArray:
    """Returns how different the two beats from each beat on sound from the two before it: [beats]."""
    chroma = _beat_chroma(features, beats)
    padded = np.pad(chroma, ((2, 1), (0, 0)), mode="edge")
    before, after = padded[:-3] + padded[1:-2], padded[2:-1] + padded[3:]
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    change: FloatArray = np.sqrt(norms) / 2.0 * (1.0 - (before * after).sum(axis=1) / np.maximum(norms, 1e-9))
    change[0] = change[1:].max(initial=0.0)  # Music begins with a chord.
    return np.asarray(np.sqrt(np.maximum(change, 0.0)))


def _beats_per_bar(features: BeatFeatures, beats: FloatArray) -> int:
    """Compares how similar the beats are to those three and six, and two, four and eight beats later."""
    if len(beats) < 12:
        return METRES[0]
    marks = np.stack(
        [
            _standardized(values)
            for values in (
                onsets_at(features.bass, features, beats),
                onsets_at(features.onsets, features, beats),
                harmonic_change(features, beats),
            )
        ]
    )

    def similarity(lag: int) -> float:
        return float((marks[:, lag:] * marks[:, :-lag]).mean()) if lag < marks.shape[1] - 2 else 0.0

    triple = (similarity(3) + similarity(6)) / 2.0
    duple = (similarity(2) + similarity(4) + similarity(8)) / 3.0
    quadruple = max(duple, (similarity(4) + similarity(8)) / 2.0)
    return 3 if triple > quadruple + TRIPLE_ADVANTAGE else 4


def _standardized(values: FloatArray) -> FloatArray:
    deviation = float(values.std())
    return np.asarray((values - values.mean()) / deviation) if deviation > 1e-9 else np.zeros(len(values))
