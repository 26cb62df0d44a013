"""Measures a clip while it is stored. A figure that cannot be measured is left out; the clip is kept."""

from __future__ import annotations

from dataclasses import dataclass

from export_service.analysis.analyzer import Analysis, Analyzer
from export_service.analysis.figure_guard import FigureGuard, NotMeasured
from export_service.dsp.arrays import Samples
from export_service.dsp.measurement import LoudnessMeasurement, SignalMeter
from service_runtime.failpoints import failpoint

LOUDNESS = "loudness"


@dataclass(frozen=True)
class ClipMeasurement:
    """What was measured of a clip."""

    loudness: LoudnessMeasurement | None
    """None if an error occurred."""
    analysis: Analysis
    not_measured: tuple[NotMeasured, ...]


class ClipMeter:
    """Measures samples fed in pieces of any size. It raises no errors: `ClipMeasurement.not_measured` reports them."""

    def __init__(self, sample_rate_hz: int, channels: int) -> None:
        self._figures = FigureGuard()
        self._meter = SignalMeter(sample_rate_hz, channels)
        self._analyzer = Analyzer(sample_rate_hz)

    def feed(self, samples: Samples) -> None:
        """Adds the next frames: [frames, channels], finite."""
        if not self._figures.failures:
            with self._figures.guard(LOUDNESS):
                failpoint("export.loudness_measurement")
                self._meter.feed(samples)
        self._analyzer.feed(samples)

    def finish(self) -> ClipMeasurement:
        """Returns the figures of everything that was fed. `feed` must not be called afterwards."""
        loudness = None
        if not self._figures.failures:
            with self._figures.guard(LOUDNESS):
                loudness = self._meter.finish()
        analysis = self._analyzer.finish()
        return ClipMeasurement(loudness, analysis, self._figures.failures + analysis.not_measured)
