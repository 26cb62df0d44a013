"""Conversions between the domain and the messages of the generation service."""

from __future__ import annotations

from dgx_music.generation.v1 import generation_pb2
from generation_service.engine.engine_status import EngineStatus
from generation_service.engine.request_handle import GenerationHandle
from generation_service.models.base import ModelInfo


def progress_to_proto(handle: GenerationHandle, frames: int) -> generation_pb2.GenerateProgress:
    """Returns the progress of the handle's request after `frames` frames were sent."""
    return generation_pb2.GenerateProgress(
        frames=frames,
        expected_frames=handle.parameters.frames,
        seed=handle.parameters.seed,
        model_name=handle.info.name,
    )


def model_to_proto(info: ModelInfo, *, is_default: bool, is_loaded: bool) -> generation_pb2.Model:
    """Returns the message that describes a usable model."""
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


def unusable_model_to_proto(name: str, problem: str, *, is_default: bool) -> generation_pb2.Model:
    """Returns the message that describes an installed model that cannot be used because of `problem`."""
    return generation_pb2.Model(name=name, problem=problem, is_default=is_default)


def engine_status_to_proto(status: EngineStatus) -> generation_pb2.GetEngineStatusResponse:
    """Returns the response with the engine's load."""
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
