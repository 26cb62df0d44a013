"""Proto ↔ domain, all of it."""

from __future__ import annotations

from dgx_music.generation.v1 import generation_pb2
from generation_service.engine.engine import EngineStatus
from generation_service.engine.request_handle import GenerationHandle
from generation_service.models.base import ModelInfo


def progress(handle: GenerationHandle, frames: int) -> generation_pb2.GenerateProgress:
    """How far the handle's request is: so many frames."""
    return generation_pb2.GenerateProgress(
        frames=frames,
        expected_frames=handle.parameters.frames,
        seed=handle.parameters.seed,
        model_name=handle.info.name,
    )


def model(info: ModelInfo, *, is_default: bool, is_loaded: bool) -> generation_pb2.Model:
    """A model as callers see it."""
    return generation_pb2.Model(
        name=info.name,
        version=info.version,
        description=info.description,
        license=info.licence,
        sample_rate_hz=info.sample_rate_hz,
        channels=info.channels,
        max_duration_seconds=info.max_duration_seconds,
        is_default=is_default,
        is_loaded=is_loaded,
        can_continue=info.can_continue,
    )


def unusable_model(name: str, problem: str, *, is_default: bool) -> generation_pb2.Model:
    """A model that is there but can't be used."""
    return generation_pb2.Model(name=name, problem=problem, is_default=is_default)


def engine_status(status: EngineStatus) -> generation_pb2.GetEngineStatusResponse:
    """What the engine is doing."""
    return generation_pb2.GetEngineStatusResponse(
        running=status.running,
        waiting=status.waiting,
        max_batch_size=status.max_batch_size,
        max_waiting=status.max_waiting,
        steps_per_second=status.steps_per_second,
        audio_seconds_per_second=status.audio_seconds_per_second,
        device=status.device,
        kv_reserved_bytes=status.kv_reserved_bytes,
        kv_limit_bytes=status.kv_limit_bytes,
    )
