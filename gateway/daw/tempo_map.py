"""The tempo and the metre of a session over its time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

DEFAULT_BPM, DEFAULT_BEATS_PER_BAR = 120.0, 4


@dataclass(frozen=True)
class TempoPoint:
    """A tempo from a beat on."""

    seconds: float
    beat: int
    """Number of the beat from the start of the session, from 0."""
    bpm: float


@dataclass(frozen=True)
class MetrePoint:
    """A metre from a bar on."""

    seconds: float
    beat: int
    bar: int
    """Number of the bar, from 0."""
    beats_per_bar: int


@dataclass(frozen=True)
class TempoMap:
    """Tempi and metres, both ascending and with one at 0."""

    tempi: Sequence[TempoPoint] = (TempoPoint(0.0, 0, DEFAULT_BPM),)
    metres: Sequence[MetrePoint] = (MetrePoint(0.0, 0, 0, DEFAULT_BEATS_PER_BAR),)

    def beat_at(self, seconds: float) -> float:
        """Returns the position in beats of a time from 0 on."""
        point = self.tempi[max(bisect_right(self.tempi, seconds + 1e-9, key=lambda one: one.seconds) - 1, 0)]
        return point.beat + (seconds - point.seconds) * point.bpm / 60.0

    def seconds_at(self, beat: float) -> float:
        """Returns the time of a position in beats from 0 on."""
        point = self.tempi[max(bisect_right(self.tempi, beat + 1e-9, key=lambda one: one.beat) - 1, 0)]
        return point.seconds + (beat - point.beat) * 60.0 / point.bpm

    def bar_at(self, beat: int) -> tuple[int, int]:
        """Returns the bar and the beat within it, both from 0, of a beat."""
        point = self.metres[max(bisect_right(self.metres, beat, key=lambda one: one.beat) - 1, 0)]
        bars, rest = divmod(beat - point.beat, point.beats_per_bar)
        return point.bar + bars, rest
