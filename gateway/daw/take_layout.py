"""Places takes in a session so that their bars are the session's bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from gateway.daw.tempo_map import DEFAULT_BEATS_PER_BAR, DEFAULT_BPM, MetrePoint, TempoMap, TempoPoint

SAME_TEMPO = 0.005
"""Tempi that differ by this share or less count as the same: over 30 s the bars drift apart by 150 ms at most."""
PICKUP_TOLERANCE_SECONDS = 0.02
"""A first bar that begins this early or late begins with the file."""


class Placement(StrEnum):
    """Where the takes are."""

    LAYERS = "layers"
    """All begin together, to choose between them or to combine them."""
    SEQUENCE = "sequence"
    """One after the other, each at its own tempo."""


@dataclass(frozen=True)
class TakeGrid:
    """Where the bars of a take are."""

    tempi: Sequence[TempoPoint] = (TempoPoint(0.0, 0, DEFAULT_BPM),)
    """From the first bar on: the first has beat 0, and the seconds are from the start of the file."""
    beats_per_bar: int = DEFAULT_BEATS_PER_BAR
    is_known: bool = False
    """Whether the tempo is that of the music."""
    confidence: float = 0.0
    """How sure the beats are, 0 to 1."""

    @property
    def first_bar_seconds(self) -> float:
        return self.tempi[0].seconds

    @property
    def bpm(self) -> float:
        return self.tempi[0].bpm


@dataclass(frozen=True)
class Layout:
    """The places of takes."""

    placement: Placement
    starts: Sequence[float]
    """Where each take begins in seconds."""
    tempo_map: TempoMap


def choose_placement(grids: Sequence[TakeGrid]) -> Placement:
    """Returns LAYERS if all takes have the same tempo, otherwise SEQUENCE."""
    known = [grid for grid in grids if grid.is_known]
    fits = all(
        len(grid.tempi) == len(known[0].tempi) == 1
        and abs(grid.bpm / known[0].bpm - 1.0) <= SAME_TEMPO
        and grid.beats_per_bar == known[0].beats_per_bar
        for grid in known[1:]
    )
    return Placement.LAYERS if fits else Placement.SEQUENCE


def lay_out(grids: Sequence[TakeGrid], seconds: Sequence[float], placement: Placement) -> Layout:
    """Places takes of these lengths. Between takes that follow one another, the bar that has begun is finished."""
    grids = [_without_short_pickup(grid) for grid in grids]
    if placement is Placement.LAYERS:
        leading = next((grid for grid in grids if grid.is_known), grids[0])
        lead_in = max(_pickup_bars(grid.first_bar_seconds, leading) for grid in grids)
        layers = _append(None, leading, 0, lead_in)
        bar_seconds = layers.seconds_at(lead_in * leading.beats_per_bar)
        return Layout(placement, [bar_seconds - grid.first_bar_seconds for grid in grids], layers)
    tempo_map: TempoMap | None = None
    starts: list[float] = []
    bar = 0
    for grid, length in zip(grids, seconds, strict=True):
        lead_in = _pickup_bars(grid.first_bar_seconds, grid)
        tempo_map = _append(tempo_map, grid, bar, lead_in)
        metre = tempo_map.metres[-1]
        starts.append(tempo_map.seconds_at(metre.beat + lead_in * grid.beats_per_bar) - grid.first_bar_seconds)
        end_beat = tempo_map.beat_at(starts[-1] + length) - metre.beat
        bar = metre.bar + math.ceil(end_beat / grid.beats_per_bar - 1e-6)
    assert tempo_map is not None, "there is at least one take"
    return Layout(placement, starts, tempo_map)


def _without_short_pickup(grid: TakeGrid) -> TakeGrid:
    if grid.first_bar_seconds <= PICKUP_TOLERANCE_SECONDS:
        return replace(grid, tempi=[replace(grid.tempi[0], seconds=0.0), *grid.tempi[1:]])
    return grid


def _pickup_bars(first_bar_seconds: float, grid: TakeGrid) -> int:
    """Returns how many bars at the tempo of the grid are needed for what is before the first bar."""
    bar_seconds = grid.beats_per_bar * 60.0 / grid.bpm
    return math.ceil(first_bar_seconds / bar_seconds - 1e-6)


def _append(tempo_map: TempoMap | None, grid: TakeGrid, bar: int, lead_in: int) -> TempoMap:
    """Returns the map with the tempi of a take that has its first bar `lead_in` bars after the bar `bar`."""
    if tempo_map is None:
        start = MetrePoint(0.0, 0, 0, grid.beats_per_bar)
        tempi: list[TempoPoint] = []
        metres: list[MetrePoint] = []
    else:
        last = tempo_map.metres[-1]
        beat = last.beat + (bar - last.bar) * last.beats_per_bar
        start = MetrePoint(tempo_map.seconds_at(beat), beat, bar, grid.beats_per_bar)
        tempi, metres = list(tempo_map.tempi), list(tempo_map.metres)
    first_beat = start.beat + lead_in * grid.beats_per_bar
    first_seconds = start.seconds + lead_in * grid.beats_per_bar * 60.0 / grid.bpm
    tempi.append(TempoPoint(start.seconds, start.beat, grid.bpm))
    tempi += [
        TempoPoint(first_seconds + point.seconds - grid.first_bar_seconds, first_beat + point.beat, point.bpm)
        for point in grid.tempi[1:]
    ]
    return TempoMap(tempi, [*metres, start])
