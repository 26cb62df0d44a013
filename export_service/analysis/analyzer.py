"""Analyzes the tempo and the key of music."""

from __future__ import annotations

from dataclasses import dataclass

from export_service.analysis.features import FeatureExtractor, Features
from export_service.analysis.figure_guard import FigureGuard, NotMeasured
from export_service.analysis.key import Key, estimate_key
from export_service.analysis.tempo import Tempo, estimate_tempo
from export_service.dsp.arrays import Samples
from service_runtime.failpoints import failpoint

MIN_ANALYSIS_SECONDS = 5.0
"""Shorter audio does not contain enough to analyze."""
TEMPO, KEY = "tempo", "key"


@dataclass(frozen=True)
class Analysis:
    """The tempo and the key of a whole signal; None if it is too short, has no recognizable tempo or key, or if the
    estimate failed.
    """

    tempo: Tempo | None
    key: Key | None
    not_measured: tuple[NotMeasured, ...] = ()


NO_ANALYSIS = Analysis(None, None)


class Analyzer:
    """Analyzes a signal fed in pieces of any size. It raises no errors: `Analysis.not_measured` reports them."""

    def __init__(self, sample_rate_hz: int, tempo_hint_bpm: float = 0.0) -> None:
        self._tempo_hint_bpm = tempo_hint_bpm
        self._figures = FigureGuard()
        with self._figures.guard(TEMPO, KEY):
            self._extractor = FeatureExtractor(sample_rate_hz)

    def feed(self, samples: Samples) -> None:
        """Adds the next frames: [frames, channels], finite. Does nothing after an error."""
        if not self._figures.failures:
            with self._figures.guard(TEMPO, KEY):
                failpoint("export.feature_extraction")
                self._extractor.feed(samples)

    def finish(self) -> Analysis:
        """Returns the analysis of everything that was fed. `feed` must not be called afterwards."""
        features = None
        if not self._figures.failures:
            with self._figures.guard(TEMPO, KEY):
                features = self._extractor.finish()
                del self._extractor  # The memory is needed for the tempo and for mastering.
        if features is None:
            return Analysis(None, None, self._figures.failures)
        return analyze(features, self._tempo_hint_bpm)


def analyze(features: Features, tempo_hint_bpm: float = 0.0) -> Analysis:
    """Estimates tempo and key. `tempo_hint_bpm` is the requested tempo, 0 if there was none; it decides between tempi
    that fit equally well.
    """
    if features.seconds < MIN_ANALYSIS_SECONDS:
        return NO_ANALYSIS
    tempo, key, figures = None, None, FigureGuard()
    with figures.guard(TEMPO):
        failpoint("export.tempo_estimation")
        tempo = estimate_tempo(features.onsets, features.onset_rate_hz, tempo_hint_bpm)
    with figures.guard(KEY):
        failpoint("export.key_estimation")
        key = estimate_key(features.chroma)
    return Analysis(tempo, key, figures.failures)
