"""The calls that read a whole file to measure it, for drawing and for placing it on a grid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc.aio

from dgx_music.export.v1 import export_pb2, export_pb2_grpc
from export_service.library.waveform import compute_waveform
from export_service.pipeline.beat_grid_reading import read_beat_grid
from export_service.pipeline.curve_measurement import measure_curve
from export_service.pipeline.export_manager import ExportManager
from export_service.rpc import beat_grid_converters, converters, curve_converters
from export_service.threads import run_in_thread

Context = grpc.aio.ServicerContext[Any, Any]
A = TypeVar("A")
T = TypeVar("T")


class MeasurementServicer(export_pb2_grpc.ExportServiceServicer):
    """A part of dgx_music.export.v1.ExportService."""

    def __init__(self, manager: ExportManager) -> None:
        self._manager = manager

    async def GetWaveform(
        self, request: export_pb2.GetWaveformRequest, context: Context
    ) -> export_pb2.GetWaveformResponse:
        points = converters.to_waveform_points(request.points)
        return converters.from_waveform(
            await self._measure(compute_waveform, points, request.generation_id, request.render_id)
        )

    async def GetBeatGrid(
        self, request: export_pb2.GetBeatGridRequest, context: Context
    ) -> export_pb2.GetBeatGridResponse:
        expected_bpm = beat_grid_converters.to_expected_bpm(request.expected_bpm)
        grid = await self._measure(read_beat_grid, expected_bpm, request.generation_id)
        return beat_grid_converters.from_beat_grid(grid)

    async def GetLoudnessCurve(
        self, request: export_pb2.GetLoudnessCurveRequest, context: Context
    ) -> export_pb2.GetLoudnessCurveResponse:
        points = curve_converters.to_curve_points(request.points)
        return curve_converters.from_curve(await self._measure(measure_curve, points, request.generation_id))

    async def _measure(
        self, measure: Callable[[Path, A], T], argument: A, generation_id: str, render_id: str = ""
    ) -> T:
        """Runs `measure` in a thread, with the path of a file that is not deleted meanwhile."""
        file_id = converters.to_generation_id(generation_id), converters.to_render_id(render_id)
        with self._manager.locks.read_lock(*file_id):
            return await run_in_thread(measure, await self._manager.find_path(*file_id), argument)
