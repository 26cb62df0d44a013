"""Follows the tempo through a signal: the most likely path through the tempi that fit each few seconds of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export_service.analysis.tempo import MIN_CONFIDENCE, TEMPO_STEP, fit_tempi
from export_service.dsp.arrays import FloatArray, Samples

WINDOW_SECONDS, HOP_SECONDS = 12.0, 3.0
"""A tempo is estimated from this much music, this often. Fewer seconds hold too few bars to recognize a metre."""
CHANGE_COST = 0.04
"""What a change by one per cent between two windows costs, relative to a perfect self-similarity of 1."""
LEAP_COST = 0.5
"""What any other change costs, so that a new tempo is followed, and a fill at double time is not."""
WHOLE_WEIGHT = 0.6
"""How much the fit of a tempo to the whole signal counts, relative to that to a few seconds of it."""
MAX_GLIDE = 0.12
"""The largest change between two windows that is a glide; larger ones are leaps."""


@dataclass(frozen=True)
class TempoCurve:
    """The tempo over time."""

    seconds: FloatArray
    """[windows]: the middle of each window."""
    bpm: FloatArray
    """[windows]"""
    confidence: float
    """0 to 1: how similar the music is to itself one beat and some bars later."""


def follow_tempo(onsets: Samples, rate_hz: float, hint_bpm: float = 0.0) -> TempoCurve | None:
    """Returns the tempo over time; None if nothing repeats. `hint_bpm` is the tempo that the music is known to have on
    the whole, or 0: it decides between tempi that fit equally well.
    """
    window, hop = (round(seconds * rate_hz) for seconds in (WINDOW_SECONDS, HOP_SECONDS))
    starts = range(0, max(len(onsets) - window // 2, 1), hop)
    whole = fit_tempi(onsets, rate_hz, hint_bpm)
    if whole is None:
        return None
    candidates, _, whole_score = whole
    scores, fits = [], []
    for start in starts:
        fit = fit_tempi(onsets[start : start + window], rate_hz, hint_bpm)
        fits.append(np.zeros(len(candidates)) if fit is None else fit[1])
        scores.append(np.zeros(len(candidates)) if fit is None else fit[2])
    # What fits the whole signal decides between half and double.
    path = _best_path(np.array(scores) + WHOLE_WEIGHT * np.maximum(whole_score, 0.0))
    confidence = float(np.clip(np.mean([fit[at] for fit, at in zip(fits, path, strict=True)]), 0.0, 1.0))
    if confidence < MIN_CONFIDENCE:
        return None
    middles = np.array([start + min(window, len(onsets) - start) / 2 for start in starts]) / rate_hz
    return TempoCurve(middles, candidates[path], confidence)


def _best_path(scores: FloatArray) -> list[int]:
    """Returns the candidates, one a window, whose scores minus the costs of their changes are largest."""
    reach = int(np.log1p(MAX_GLIDE) / np.log(TEMPO_STEP))
    shifts = np.arange(-reach, reach + 1)
    costs = np.minimum(np.abs(shifts) * np.log(TEMPO_STEP) * 100.0 * CHANGE_COST, LEAP_COST)
    total, origins = scores[0], []
    for score in scores[1:]:
        padded = np.pad(total, reach, constant_values=-np.inf)
        glides = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1) - costs
        nearest = glides.argmax(axis=1)
        best, origin = glides[np.arange(len(total)), nearest], np.arange(len(total)) + shifts[nearest]
        leap = int(total.argmax())
        leaps = total[leap] - LEAP_COST > best
        origins.append(np.where(leaps, leap, origin))
        total = np.where(leaps, total[leap] - LEAP_COST, best) + score
    path = [int(total.argmax())]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    return path[::-1]
