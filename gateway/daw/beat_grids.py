"""The bars of takes: from what the model says about its own music, or else from what export hears in the file."""

from __future__ import annotations

from dgx_music.export.v1.export_pb2 import GetBeatGridResponse
from dgx_music.storage.v1.storage_pb2 import Generation
from gateway.daw.take_layout import TakeGrid
from gateway.daw.tempo_map import TempoPoint

MIN_BEAT_CONFIDENCE = 0.2
"""Beats that are less sure than this are not used: the session gets the tempo of the metadata."""


def exact_grid(generation: Generation) -> TakeGrid | None:
    """Returns the grid of music that was composed on one, from its first frame on; None for all other music."""
    fields = generation.metadata.fields
    bpm = fields["bpm"].number_value if "bpm" in fields else 0.0
    is_composed = "is_synthesiser" in fields and fields["is_synthesiser"].bool_value
    starts_anew = not (generation.HasField("continuation") or generation.HasField("edit"))
    if not (is_composed and starts_anew and bpm > 0.0):
        return None
    metre = fields["time_signature"].string_value if "time_signature" in fields else ""
    beats, _, unit = metre.partition("/")
    beats_per_bar = int(beats) if beats.isdigit() and unit == "4" else 4
    return TakeGrid((TempoPoint(0.0, 0, bpm),), beats_per_bar, is_known=True, confidence=1.0)


def heard_grid(response: GetBeatGridResponse, generation: Generation) -> TakeGrid:
    """Returns the grid that was heard. Without sure beats, its tempo is that of the metadata, and otherwise unknown."""
    beats = response.beat_seconds
    if len(beats) < 2 or response.beat_confidence < MIN_BEAT_CONFIDENCE:
        return _grid_of_metadata(generation)
    first = response.first_downbeat if response.first_downbeat < len(beats) else 0
    tempi: list[TempoPoint] = []
    for change in response.tempo:
        beat = min(range(len(beats)), key=lambda index: abs(beats[index] - change.time_seconds))
        if beat <= first:
            tempi = [TempoPoint(beats[first], 0, change.bpm)]
        else:
            tempi.append(TempoPoint(beats[beat], beat - first, change.bpm))
    return TakeGrid(tuple(tempi), response.beats_per_bar or 4, is_known=True, confidence=response.beat_confidence)


def _grid_of_metadata(generation: Generation) -> TakeGrid:
    fields = generation.metadata.fields
    for key in ("bpm", "measured_bpm"):
        if key in fields and fields[key].number_value > 0.0:
            return TakeGrid((TempoPoint(0.0, 0, fields[key].number_value),), is_known=True)
    return TakeGrid()
