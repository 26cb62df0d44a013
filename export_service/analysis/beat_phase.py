"""Decides whether beats are on the beat, or on an offbeat that is as strong: half a beat away, or on swung notes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export_service.analysis.beat_features import BeatFeatures
from export_service.analysis.downbeats import harmonic_change, onsets_at
from export_service.dsp.arrays import FloatArray

STEPS = 12
"""Places in a beat that are compared: they have those of halves, thirds and sixteenths."""
FIRST_STEP, LAST_STEP = 3, 9
"""Nearer places to a beat are still those of its own onset."""
SWUNG_STEP, SWINGING_STEP = 4, 8
"""In swing, the first note of a beat is the long one: the other is at two thirds. If it seems to be at one third, the
beats are on the short notes."""
BASS_WEIGHT, HARMONY_WEIGHT, SWING_WEIGHT = 0.3, 8.0, 0.6
"""How much these count, relative to the logarithm of the onsets' ratio."""
MIN_EVIDENCE = 0.15
"""More evidence than this moves the beats. What was tracked was the best by its onsets, so chance is no reason."""
SURE_EVIDENCE = 0.5
"""How far from MIN_EVIDENCE the evidence is on one side if it is sure."""
MIN_BEATS = 9


@dataclass(frozen=True)
class BeatPhase:
    """Where beats are, relative to those that were tracked."""

    shift: float
    """In beats: 0, or how much later they are."""
    confidence: float
    """0 to 1: how much better this place is than the next best."""


def find_phase(features: BeatFeatures, beats: FloatArray, beats_per_bar: int) -> BeatPhase:
    """Compares beats at these times, in seconds from the first frame, with the strongest place between them: by all
    onsets, by those of bass drum and bass, and by how well the harmony changes with the bars.
    """
    if len(beats) < MIN_BEATS:
        return BeatPhase(0.0, 1.0)
    places = [beats[:-1] + step / STEPS * np.diff(beats) for step in range(STEPS)]
    onsets, bass = (
        np.array([onsets_at(values, features, place).mean() for place in places])
        for values in (features.onsets, features.bass)
    )
    step = FIRST_STEP + int(onsets[FIRST_STEP : LAST_STEP + 1].argmax())
    harmony = _harmony_fit(features, places[step], beats_per_bar) - _harmony_fit(features, places[0], beats_per_bar)
    evidence = _log_ratio(onsets, step) + BASS_WEIGHT * _log_ratio(bass, step) + HARMONY_WEIGHT * harmony
    evidence += SWING_WEIGHT * (int(step == SWUNG_STEP) - 0.5 * int(step == SWINGING_STEP))
    confidence = float(np.clip(abs(evidence - MIN_EVIDENCE) / SURE_EVIDENCE, 0.0, 1.0))
    return BeatPhase(step / STEPS if evidence > MIN_EVIDENCE else 0.0, confidence)


def shifted(beats: FloatArray, shift: float, seconds: float) -> FloatArray:
    """Returns the beats of the whole signal, each later by a share of its interval."""
    if not shift:
        return beats
    intervals = np.diff(beats)
    moved = beats + shift * np.append(intervals, intervals[-1])
    before = moved[0] - intervals[0]
    return np.asarray(np.concatenate([[before] if before >= 0.0 else [], moved[moved < seconds]]))


def _harmony_fit(features: BeatFeatures, beats: FloatArray, beats_per_bar: int) -> float:
    """Returns how much more the harmony changes at the best first beat of the bar than on average."""
    change = harmonic_change(features, beats)
    return float(max(change[phase:-1:beats_per_bar].mean() for phase in range(beats_per_bar)) - change.mean())


def _log_ratio(strengths: FloatArray, step: int) -> float:
    """Returns the logarithm of the strength at a place, relative to that at the beats."""
    floor = 0.01 * strengths.max() + 1e-9
    return float(np.log((strengths[step] + floor) / (strengths[0] + floor)))
