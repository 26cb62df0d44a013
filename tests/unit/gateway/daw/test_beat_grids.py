"""Which beats a session believes."""

from __future__ import annotations

import pytest

from dgx_music.export.v1.export_pb2 import GetBeatGridResponse, TempoChange
from dgx_music.storage.v1.storage_pb2 import Generation
from gateway.daw.beat_grids import exact_grid, heard_grid


def generation(**metadata):
    made = Generation()
    made.metadata.update(metadata)
    return made


def test_composed_music_has_the_grid_that_it_was_composed_on():
    grid = exact_grid(generation(bpm=124.0, is_synthesiser=True, time_signature="3/4"))
    assert (grid.bpm, grid.beats_per_bar, grid.first_bar_seconds, grid.is_known) == (124.0, 3, 0.0, True)


def test_other_music_has_no_exact_grid():
    assert exact_grid(generation(bpm=124.0)) is None
    assert exact_grid(generation(is_synthesiser=True)) is None
    continued = generation(bpm=124.0, is_synthesiser=True)
    continued.continuation.seconds = 5.0
    assert exact_grid(continued) is None
    extended = generation(bpm=124.0, is_synthesiser=True)
    extended.edit.SetInParent()
    assert exact_grid(extended) is None


def test_heard_grid_begins_at_the_first_bar():
    response = GetBeatGridResponse(
        beat_seconds=[0.2, 0.7, 1.2, 1.7, 2.3, 2.9, 3.5],
        first_downbeat=1,
        beats_per_bar=4,
        beat_confidence=0.9,
        tempo=[TempoChange(time_seconds=0.0, bpm=120.0), TempoChange(time_seconds=1.7, bpm=100.0)],
    )
    grid = heard_grid(response, generation())
    assert [(point.seconds, point.beat, point.bpm) for point in grid.tempi] == [(0.7, 0, 120.0), (1.7, 2, 100.0)]
    assert grid.is_known


def test_change_of_tempo_before_the_first_bar_is_its_tempo():
    response = GetBeatGridResponse(
        beat_seconds=[0.0, 0.5, 1.1, 1.7],
        first_downbeat=2,
        beats_per_bar=4,
        beat_confidence=0.9,
        tempo=[TempoChange(time_seconds=0.0, bpm=120.0), TempoChange(time_seconds=0.5, bpm=100.0)],
    )
    grid = heard_grid(response, generation())
    assert [(point.seconds, point.beat, point.bpm) for point in grid.tempi] == [(1.1, 0, 100.0)]


@pytest.mark.parametrize(
    "response", [GetBeatGridResponse(), GetBeatGridResponse(beat_seconds=[0, 1], beat_confidence=0.1)]
)
def test_without_sure_beats_the_metadata_say_the_tempo(response):
    assert heard_grid(response, generation(measured_bpm=98.5)).bpm == 98.5
    unknown = heard_grid(response, generation())
    assert (unknown.is_known, unknown.bpm) == (False, 120.0)
