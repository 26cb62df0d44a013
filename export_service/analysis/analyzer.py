"""What the music is: its tempo and its key."""

from __future__ import annotations

from dataclasses import dataclass

from export_service.analysis.features import Features
from export_service.analysis.key import Key, key
from export_service.analysis.tempo import Tempo, tempo

LEAST_SECONDS = 5.0
"""Shorter audio is too little to tell from."""


@dataclass(frozen=True)
class Analysis:
    """Of a whole signal; None where it is too short, or nothing of the kind is heard."""

    tempo: Tempo | None
    key: Key | None


NOT_ANALYSED = Analysis(None, None)


def analyse(features: Features, tempo_hint_bpm: float = 0.0) -> Analysis:
    """`tempo_hint_bpm` is the tempo that was asked for, 0 if none was: it decides between those that fit alike."""
    if features.seconds < LEAST_SECONDS:
        return NOT_ANALYSED
    return Analysis(tempo(features.onsets, features.onset_rate_hz, tempo_hint_bpm), key(features.chroma))
