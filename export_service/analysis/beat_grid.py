"""The beat grid of a whole signal: its beats, the tempo that they follow, and where its bars begin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export_service.analysis.beat_features import BeatFeatures
from export_service.analysis.beat_phase import find_phase, shifted
from export_service.analysis.beat_tracking import TrackedBeats, track_beats
from export_service.analysis.downbeats import find_metre
from export_service.analysis.tempo_curve import follow_tempo
from export_service.dsp.arrays import FloatArray

MIN_SECONDS = 5.0
"""Shorter audio holds too few beats to recognize any."""
MIN_CONTRAST = 0.05
"""Sounds without a beat stay below this."""
STEADY_SECONDS = 0.012
"""How far beats at a steady tempo are from a straight line at most, on an average of STEADY_BEATS beats."""
STEADY_BEATS = 16
SMOOTHING_BEATS = 4
"""Beats on each side that the tempo of a beat is estimated from, if it is not steady."""
SEGMENT_SECONDS = 0.008
"""How far a beat may be from where the tempo of its segment puts it."""
LINE_ITERATIONS = 6
OUTLIER_SECONDS = 0.03
"""Onsets that are further from the line through their neighbours count little for it."""


@dataclass(frozen=True)
class TempoChange:
    """A tempo from a time on."""

    seconds: float
    bpm: float


@dataclass(frozen=True)
class BeatGrid:
    """Where the beats of a signal are."""

    beats: tuple[float, ...]
    """Seconds from the first frame, ascending."""
    first_downbeat: int
    """Index of the first beat that begins a bar."""
    beats_per_bar: int
    beat_confidence: float
    """0 to 1"""
    downbeat_confidence: float
    """0 to 1"""
    tempo: tuple[TempoChange, ...]
    """One entry, at 0, for a steady tempo."""


NO_BEATS = BeatGrid((), 0, 0, 0.0, 0.0, ())


def find_beat_grid(features: BeatFeatures, expected_bpm: float = 0.0) -> BeatGrid:
    """Returns the beat grid, NO_BEATS if there is no beat. `expected_bpm` is the tempo that the music is known to have,
    0 if there is none; it decides between half and double time.
    """
    if features.seconds < MIN_SECONDS:
        return NO_BEATS
    curve = follow_tempo(features.onsets, features.rate_hz, expected_bpm)
    tracked = None if curve is None else track_beats(features.onsets, features.rate_hz, curve)
    if curve is None or tracked is None or tracked.contrast < MIN_CONTRAST:
        return NO_BEATS
    smooth = _smooth_beats(tracked)
    beats = _extended(smooth, features.first_onset_seconds, features.seconds)
    if len(beats) < 2:
        return NO_BEATS
    metre = find_metre(features, beats)
    phase = find_phase(features, beats, metre.beats_per_bar)
    if phase.shift:
        beats = shifted(beats, phase.shift, features.seconds)
        metre = find_metre(features, beats)
    precision = _precision(tracked, smooth)
    confidence = float(np.clip(2.0 * np.sqrt(curve.confidence * tracked.contrast) * precision, 0.0, 1.0))
    confidence *= phase.confidence
    return BeatGrid(
        beats=tuple(np.round(beats, 6).tolist()),
        first_downbeat=metre.first_downbeat,
        beats_per_bar=metre.beats_per_bar,
        beat_confidence=confidence,
        downbeat_confidence=metre.confidence * confidence,
        tempo=_tempo_changes(beats),
    )


def _smooth_beats(tracked: TrackedBeats) -> FloatArray:
    """Returns the beats on a straight line if their tempo is steady, otherwise on a curve through them: [beats]."""
    numbers = np.arange(len(tracked.seconds), dtype=np.float64)
    line = _fit_line(numbers, tracked.seconds, tracked.strength)
    deviation = _moving_mean(tracked.seconds - line, tracked.strength)
    if np.abs(deviation).max() < STEADY_SECONDS:
        return line
    smooth = np.empty(len(numbers))
    for number in range(len(numbers)):
        near = slice(max(0, number - SMOOTHING_BEATS), number + SMOOTHING_BEATS + 1)
        smooth[number] = _fit_line(numbers[near], tracked.seconds[near], tracked.strength[near])[
            min(number, SMOOTHING_BEATS)
        ]
    ascending: FloatArray = np.maximum.accumulate(smooth)
    return ascending


def _fit_line(numbers: FloatArray, seconds: FloatArray, strength: FloatArray) -> FloatArray:
    """Returns the line through the beats, with less weight for weak onsets and for outliers: [beats]."""
    weights = strength + 0.05
    line: FloatArray = seconds
    for _ in range(LINE_ITERATIONS):
        middle = np.average(numbers, weights=weights)
        offsets = numbers - middle
        mean = np.average(seconds, weights=weights)
        slope = np.sum(weights * offsets * (seconds - mean)) / max(np.sum(weights * offsets**2), 1e-12)
        line = mean + slope * offsets
        weights = (strength + 0.05) / (1.0 + ((seconds - line) / OUTLIER_SECONDS) ** 4)
    return line


def _moving_mean(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Returns the weighted mean of each STEADY_BEATS successive values, with outliers limited."""
    limited = np.clip(values, -2 * OUTLIER_SECONDS, 2 * OUTLIER_SECONDS)
    kernel = np.ones(min(STEADY_BEATS, len(values)))
    weights = weights + 0.05
    mean: FloatArray = np.convolve(limited * weights, kernel, mode="valid") / np.convolve(weights, kernel, mode="valid")
    return mean


def _extended(beats: FloatArray, first_onset_seconds: float, seconds: float) -> FloatArray:
    """Returns the beats in seconds from the first frame, continued at both ends to the whole signal."""
    beats = beats + first_onset_seconds
    first, last = beats[min(4, len(beats) - 1)] - beats[0], beats[-1] - beats[max(-5, -len(beats))]
    count = min(4, len(beats) - 1)
    first, last = first / count, last / count
    # A first beat that is a few milliseconds before the first frame is at the first frame.
    tolerance = 0.02
    before = np.arange(int((beats[0] + tolerance) // first), 0, -1)
    after = np.arange(1, int((seconds - beats[-1]) // last) + 1)
    whole = np.concatenate([beats[0] - before * first, beats, beats[-1] + after * last])
    whole = whole[(whole > -tolerance) & (whole < seconds)]
    return np.asarray(np.maximum(whole, 0.0))


def _precision(tracked: TrackedBeats, smooth: FloatArray) -> float:
    """Returns the share of the onsets, by their strength, that are near the beats that were found."""
    near = np.abs(tracked.seconds - smooth) < OUTLIER_SECONDS
    return float((tracked.strength * near).sum() / max(float(tracked.strength.sum()), 1e-9))


def _tempo_changes(beats: FloatArray) -> tuple[TempoChange, ...]:
    """Returns the fewest tempi, each from a beat on, that put all beats where they are within SEGMENT_SECONDS."""
    changes: list[TempoChange] = []
    start = 0
    while start < len(beats) - 1:
        low, high, end = -np.inf, np.inf, start + 1
        # The range of intervals that reach every beat so far narrows until no interval is left.
        while end < len(beats):
            steps = end - start
            interval = (beats[end] - beats[start]) / steps
            slack = SEGMENT_SECONDS / steps
            if interval > high or interval < low:
                break
            low, high = max(low, interval - slack), min(high, interval + slack)
            end += 1
        last = end - 1 if end - 1 > start else end
        interval = (beats[last] - beats[start]) / (last - start)
        changes.append(TempoChange(0.0 if not changes else float(beats[start]), float(60.0 / interval)))
        start = last
    return tuple(changes)
