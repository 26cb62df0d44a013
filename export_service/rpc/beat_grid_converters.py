"""Converts what is analyzed on request: `to_x` from a message, `from_x` to one."""

from __future__ import annotations

from dgx_music.errors import InvalidArgument
from dgx_music.export.v1 import export_pb2
from export_service.analysis.beat_grid import BeatGrid
from export_service.analysis.tempo import MAX_BPM, MIN_BPM


def to_expected_bpm(bpm: float) -> float:
    """Returns the tempo, or 0 if it is unknown."""
    if bpm != 0.0 and not MIN_BPM <= bpm <= MAX_BPM:
        raise InvalidArgument(
            "expected_bpm", f"must be {MIN_BPM:.0f} to {MAX_BPM:.0f}, or 0 if the tempo is unknown, not {bpm}"
        )
    return bpm


def from_beat_grid(grid: BeatGrid) -> export_pb2.GetBeatGridResponse:
    return export_pb2.GetBeatGridResponse(
        beat_seconds=grid.beats,
        first_downbeat=grid.first_downbeat,
        beats_per_bar=grid.beats_per_bar,
        beat_confidence=grid.beat_confidence,
        downbeat_confidence=grid.downbeat_confidence,
        tempo=[export_pb2.TempoChange(time_seconds=change.seconds, bpm=change.bpm) for change in grid.tempo],
    )
