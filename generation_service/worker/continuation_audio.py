"""Fetches the audio that a continuation starts from: the end of a finished generation or of an imported clip."""

from __future__ import annotations

from dgx_music.export.v1 import export_pb2_grpc
from dgx_music.limits import DEFAULT_CONTINUATION_SECONDS
from dgx_music.storage.v1 import storage_pb2
from generation_service.models.base import FloatArray, ModelInfo
from generation_service.worker.source_audio import SourceAudio
from service_runtime.validation import check_continuation


async def fetch_prompt_audio(
    continuation: storage_pb2.Continuation, info: ModelInfo, export: export_pb2_grpc.ExportServiceAsyncStub
) -> FloatArray:
    """Returns the end of the source, float32 [n, channels] at the model's sample rate, for GenerationParameters.

    Raises InvalidArgument if the continuation is invalid, and errors as `SourceAudio`.
    """
    source_id = check_continuation("continuation", continuation.source_id, continuation.seconds)
    return await SourceAudio(export, source_id, "continuation").read(
        sample_rate_hz=info.sample_rate_hz,
        channels=info.channels,
        last_seconds=continuation.seconds or DEFAULT_CONTINUATION_SECONDS,
    )
