"""Analyzes the tempo and the key of music."""

from __future__ import annotations

from dataclasses import dataclass

from export_service.analysis.features import Features
from export_service.analysis.key import Key, estimate_key
from export_service.analysis.tempo import Tempo, estimate_tempo

MIN_ANALYSIS_SECONDS = 5.0
"""Shorter audio does not contain enough to analyze."""


@dataclass(frozen=True)
class Analysis:
    """The tempo and the key of a whole signal; None if it is too short, or has no recognizable tempo or key."""

    tempo: Tempo | None
    key: Key | None


NO_ANALYSIS = Analysis(None, None)


def analyze(features: Features, tempo_hint_bpm: float = 0.0) -> Analysis:
    """Estimates tempo and key. `tempo_hint_bpm` is the requested tempo, 0 if there was none; it decides between tempi
    that fit equally well.
    """
    if features.seconds < MIN_ANALYSIS_SECONDS:
        return NO_ANALYSIS
    return Analysis(
        estimate_tempo(features.onsets, features.onset_rate_hz, tempo_hint_bpm), estimate_key(features.chroma)
    )
