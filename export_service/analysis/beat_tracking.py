"""Finds the beats of a signal by dynamic programming: those at strong onsets, at intervals that follow the tempo.

The method is that of Ellis (2007), "Beat Tracking by Dynamic Programming", along a tempo that may change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from export_service.analysis.tempo import salient_onsets
from export_service.analysis.tempo_curve import TempoCurve
from export_service.dsp.arrays import FloatArray, Samples

TIGHTNESS = 1500.0
"""How much an interval costs whose ratio to the expected one has a natural logarithm of 1."""
INTERVAL_RANGE = (0.7, 1.45)
"""The shortest and the longest interval that is tried, in beats."""
ONSET_BLUR_SECONDS = 0.012
LEVEL_SECONDS = 6.0
"""Onsets are compared with those within this time around them, so that quiet passages count."""
MAX_SALIENCE = 4.0
"""One loud onset counts no more than this, where the root mean square is 1."""
SEARCH_SECONDS = 0.04
"""How far from a tracked beat its onset is looked for."""


@dataclass(frozen=True)
class TrackedBeats:
    """Beats as they were heard, before they are placed on a steady grid."""

    seconds: FloatArray
    """[beats], ascending."""
    strength: FloatArray
    """[beats]: the onset at each beat, relative to the root mean square of the seconds around it; 0 for none."""
    contrast: float
    """0 to 1: how much stronger the onsets are at the beats than between them."""


def track_beats(onsets: Samples, rate_hz: float, curve: TempoCurve) -> TrackedBeats | None:
    """Returns the beats in an onset envelope, with times from its first value; None if there are fewer than two."""
    salience = _levelled(salient_onsets(onsets, rate_hz, ONSET_BLUR_SECONDS), rate_hz)
    frames = np.arange(len(onsets))
    periods = 60.0 * rate_hz / np.interp(frames / rate_hz, curve.seconds, curve.bpm)
    beats = _best_sequence(salience, periods)
    if len(beats) < 2:
        return None
    seconds, strength = _nearest_onsets(salience, beats, rate_hz)
    return TrackedBeats(seconds, strength, _contrast(salience, beats))


def _levelled(salience: Samples, rate_hz: float) -> Samples:
    """Returns the salience relative to its root mean square over LEVEL_SECONDS around it, limited to MAX_SALIENCE."""
    reach = round(LEVEL_SECONDS / 2 * rate_hz)
    sums = np.cumsum(np.pad(np.square(salience, dtype=np.float64), (1, 0)))
    first, last = (np.clip(np.arange(len(salience)) + side, 0, len(salience)) for side in (-reach, reach + 1))
    level = np.sqrt((sums[last] - sums[first]) / (last - first))
    # A passage 30 dB below the loudest onsets of the signal stays quiet.
    relative = salience / np.maximum(level, 0.03 * level.max() + 1e-12)
    return np.asarray(MAX_SALIENCE * np.tanh(relative / MAX_SALIENCE), dtype=np.float32)


def _best_sequence(salience: Samples, periods: FloatArray) -> npt.NDArray[np.intp]:
    """Returns the frames of the beats whose salience minus the costs of their intervals is largest."""
    shortest, longest = int(INTERVAL_RANGE[0] * periods.min()), int(np.ceil(INTERVAL_RANGE[1] * periods.max())) + 1
    intervals = np.arange(longest, shortest - 1, -1)
    logs = np.log(intervals)
    total = np.zeros(longest + len(salience))
    origin = np.full(len(salience), -1, dtype=np.intp)
    log_periods = np.log(periods)
    for frame in range(len(salience)):
        # total[longest + f] is the best sum up to a beat at frame f; a sequence may begin anywhere.
        candidates = total[frame : frame + len(intervals)] - TIGHTNESS * (logs - log_periods[frame]) ** 2
        best = candidates.argmax()
        if candidates[best] > 0.0 and frame >= intervals[best]:
            origin[frame] = frame - intervals[best]
            total[longest + frame] = salience[frame] + candidates[best]
        else:
            total[longest + frame] = salience[frame]
    last_period = int(np.ceil(periods[-1])) if len(periods) else 1
    tail = max(0, len(salience) - last_period)
    frame = tail + int(total[longest + tail :].argmax()) if len(salience) else -1
    beats = []
    while frame >= 0:
        beats.append(frame)
        frame = int(origin[frame])
    return np.array(beats[::-1], dtype=np.intp)


def _nearest_onsets(salience: Samples, beats: npt.NDArray[np.intp], rate_hz: float) -> tuple[FloatArray, FloatArray]:
    """Returns the time and the strength of the strongest onset at each beat, or the beat itself where there is none."""
    reach = max(1, round(SEARCH_SECONDS * rate_hz))
    padded = np.pad(salience, reach + 1)
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 3)[beats]
    # Nearer onsets are preferred: the window falls to a half at its edges.
    weights = 1.0 - 0.5 * np.abs(np.linspace(-1.0, 1.0, 2 * reach + 1)) ** 2
    peak = (around[:, 1:-1] * weights).argmax(axis=1) + 1
    rows = np.arange(len(beats))
    left, here, right = around[rows, peak - 1], around[rows, peak], around[rows, peak + 1]
    is_peak = (here > left) & (here >= right) & (here > 0.1)
    curvature = np.minimum(left - 2.0 * here + right, -1e-9)
    offset = np.where(is_peak, peak - (reach + 1) + 0.5 * (left - right) / curvature, 0.0)
    return (beats + offset) / rate_hz, np.where(is_peak, here, 0.0).astype(np.float64)


def _contrast(salience: Samples, beats: npt.NDArray[np.intp]) -> float:
    """Compares the salience at the beats with that halfway between them and at all other times."""
    inside = salience[beats[0] : beats[-1] + 1]
    at_beats, everywhere = float(salience[beats].mean()), float(inside.mean())
    return float(np.clip(1.0 - 2.0 * everywhere / max(at_beats, 1e-9), 0.0, 1.0))
