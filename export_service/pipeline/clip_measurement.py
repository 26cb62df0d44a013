"""Measures a clip while it is stored. A figure that cannot be measured is left out; the clip is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from export_service.analysis.analyzer import Analysis, analyze
from export_service.analysis.features import FeatureExtractor
from export_service.analysis.key import Key
from export_service.analysis.tempo import Tempo
from export_service.dsp.arrays import Samples
from export_service.dsp.measurement import LoudnessMeasurement, SignalMeter
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

T = TypeVar("T")

LOUDNESS, TEMPO_AND_KEY = ("loudness",), ("tempo", "key")
"""The names of the figures that are measured together."""


@dataclass(frozen=True)
class ClipMeasurement:
    """What was measured of a clip; None if it is too short or has no such property, or if the measurement failed."""

    loudness: LoudnessMeasurement | None = None
    tempo: Tempo | None = None
    key: Key | None = None
    not_measured: dict[str, str] = field(default_factory=dict)
    """The name of each figure whose measurement failed → why."""


class ClipMeter:
    """Measures samples fed in pieces of any size. Never raises: a measurement that fails is not continued."""

    def __init__(self, sample_rate_hz: int, channels: int) -> None:
        self._meter = SignalMeter(sample_rate_hz, channels)
        self._features = FeatureExtractor(sample_rate_hz)
        self._not_measured: dict[str, str] = {}

    def feed(self, samples: Samples) -> None:
        """Adds the next frames: [frames, channels], finite."""
        self._try(LOUDNESS, lambda: self._meter.feed(samples))
        self._try(TEMPO_AND_KEY, lambda: self._features.feed(samples))

    def finish(self) -> ClipMeasurement:
        """Returns the figures of everything that was fed. `feed` must not be called afterwards."""
        loudness = self._try(LOUDNESS, self._meter.finish)
        analysis = self._try(TEMPO_AND_KEY, lambda: analyze(self._features.finish())) or Analysis(None, None)
        return ClipMeasurement(loudness, analysis.tempo, analysis.key, self._not_measured)

    def _try(self, names: tuple[str, ...], measure: Callable[[], T]) -> T | None:
        if names[0] in self._not_measured:
            return None
        try:
            return measure()
        except Exception as error:  # Whatever it is, the clip is worth more.
            log.exception("clip_measurement_failed", figures=names)
            self._not_measured |= dict.fromkeys(names, f"{type(error).__name__}: {error}")
            return None
