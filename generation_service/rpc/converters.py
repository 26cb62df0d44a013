"""Conversions between the domain and the messages of the generation service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dgx_music.generation.v1 import generation_pb2
from generation_service.engine.request_handle import GenerationHandle
from generation_service.hardware.gpu_readings import GpuReading
from generation_service.models.base import Capability, ModelInfo
from generation_service.models.execution import ModelExecution
from generation_service.processes.engine_client import EngineReport, EngineState
from generation_service.processes.engine_pool import RequestReport
from generation_service.worker.converters import STAGE_TO_PROTO

MAX_REQUESTS = 1000
"""The maximum number of requests in a response."""
STATE_TO_PROTO = {
    EngineState.STARTING: generation_pb2.ENGINE_STATE_STARTING,
    EngineState.SERVING: generation_pb2.ENGINE_STATE_SERVING,
    EngineState.FAILED: generation_pb2.ENGINE_STATE_FAILED,
}


def progress_to_proto(handle: GenerationHandle, frames: int) -> generation_pb2.GenerateProgress:
    """Returns the progress of the handle's request after `frames` frames were sent."""
    return generation_pb2.GenerateProgress(
        frames=frames,
        expected_frames=handle.parameters.frames,
        seed=handle.parameters.seed,
        model_name=handle.info.name,
    )


def model_to_proto(
    info: ModelInfo,
    *,
    is_default: bool,
    is_loaded: bool,
    execution: ModelExecution | None,
    adapters: Mapping[str, str] | None = None,
) -> generation_pb2.Model:
    """Returns the message that describes a usable model. `adapters` has the problem of each, or nothing."""
    return generation_pb2.Model(
        name=info.name,
        version=info.version,
        description=info.description,
        license=info.licence,
        sample_rate_hz=info.sample_rate_hz,
        channels=info.channels,
        max_duration_seconds=info.max_duration_seconds,
        max_continuation_seconds=_max_continuation_seconds(info),
        is_default=is_default,
        is_loaded=is_loaded,
        capabilities=[f"CAPABILITY_{each.name}" for each in Capability if each in info.capabilities],
        execution=None if execution is None else _execution_to_proto(execution),
        adapters=[
            generation_pb2.ModelAdapter(name=name, problem=problem) for name, problem in (adapters or {}).items()
        ],
    )


def _max_continuation_seconds(info: ModelInfo) -> float:
    if Capability.CONTINUATION not in info.capabilities:
        return 0.0
    return info.max_duration_seconds if info.max_continuation_seconds is None else info.max_continuation_seconds


def unusable_model_to_proto(name: str, problem: str, *, is_default: bool) -> generation_pb2.Model:
    """Returns the message that describes an installed model that cannot be used because of `problem`."""
    return generation_pb2.Model(name=name, problem=problem, is_default=is_default)


def _execution_to_proto(execution: ModelExecution) -> generation_pb2.ModelExecution:
    """Returns the message that says how a loaded model runs."""
    return generation_pb2.ModelExecution(
        device=execution.device,
        precision=execution.precision,
        kv_precision=execution.kv_precision,
        max_batch_size=execution.max_batch_size,
        load_seconds=execution.load_seconds,
        warm_up_seconds=execution.warm_up_seconds,
        kernels=[
            generation_pb2.KernelChoice(
                operation=kernel.operation,
                implementation=kernel.implementation,
                microseconds=kernel.microseconds,
                reason=kernel.reason,
            )
            for kernel in execution.kernels
        ],
    )


def engine_status_to_proto(
    engines: Sequence[EngineReport], readings: Sequence[GpuReading], requests: Sequence[RequestReport]
) -> generation_pb2.GetEngineStatusResponse:
    """Returns the response with the load of the engines, of which there is at least one, and of their devices."""
    statuses = [engine.status for engine in engines]
    return generation_pb2.GetEngineStatusResponse(
        running=sum(status.running for status in statuses),
        waiting=sum(status.waiting for status in statuses),
        max_batch_size=sum(status.max_batch_size for status in statuses),
        max_waiting=sum(status.max_waiting for status in statuses),
        steps_per_second=sum(status.steps_per_second for status in statuses),
        audio_seconds_per_second=sum(status.audio_seconds_per_second for status in statuses),
        device=engines[0].device.model_name,
        kv_reserved_bytes=sum(status.kv_reserved_bytes for status in statuses),
        kv_limit_bytes=sum(status.kv_limit_bytes for status in statuses),
        engines=[_engine_to_proto(engine, reading) for engine, reading in zip(engines, readings, strict=True)],
        requests=[_request_to_proto(request) for request in requests[:MAX_REQUESTS]],
    )


def _engine_to_proto(engine: EngineReport, reading: GpuReading) -> generation_pb2.Engine:
    return generation_pb2.Engine(
        device=engine.device.name,
        device_name=engine.device.model_name,
        state=STATE_TO_PROTO[engine.state],
        problem=engine.problem,
        restarts=engine.restarts,
        running=engine.status.running,
        waiting=engine.status.waiting,
        max_batch_size=engine.status.max_batch_size,
        steps_per_second=engine.status.steps_per_second,
        audio_seconds_per_second=engine.status.audio_seconds_per_second,
        kv_reserved_bytes=engine.status.kv_reserved_bytes,
        kv_limit_bytes=engine.status.kv_limit_bytes,
        memory_used_bytes=reading.memory_used_bytes,
        memory_total_bytes=reading.memory_total_bytes,
        temperature_celsius=reading.temperature_celsius,
        power_watts=reading.power_watts,
        utilization_percent=reading.utilization_percent,
        loaded_models=sorted({info.name for info in engine.models}),
    )


def _request_to_proto(request: RequestReport) -> generation_pb2.EngineRequest:
    return generation_pb2.EngineRequest(
        generation_id=request.origin.generation_id,
        device=request.device.name,
        model_name=request.info.name,
        stage=STAGE_TO_PROTO[request.stage],
        frames=request.frames,
        expected_frames=request.expected_frames,
        sample_rate_hz=request.info.sample_rate_hz,
        age_seconds=request.age_seconds,
        progress=request.progress,
    )
