"""Fetches the audio that a continuation starts from: the end of a finished generation or of an imported clip."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
import numpy as np

from dgx_music.audio.v1 import audio_pb2
from dgx_music.errors import DataLoss, InvalidArgument, ServiceError
from dgx_music.export.v1 import export_pb2, export_pb2_grpc
from dgx_music.limits import DEFAULT_CONTINUATION_SECONDS
from dgx_music.pcm import PcmReader
from dgx_music.storage.v1 import storage_pb2
from generation_service.models.base import Capability, FloatArray, ModelInfo
from generation_service.models.catalog import ModelCatalog
from service_runtime.capabilities import unsupported_error
from service_runtime.rpc.deadlines import time_left
from service_runtime.validation import check_continuation

FETCH_TIMEOUT_SECONDS = 60.0
"""The timeout of the whole stream. Export resamples ten minutes of audio in about one minute."""


async def fetch_prompt_audio(
    continuation: storage_pb2.Continuation,
    info: ModelInfo,
    catalog: ModelCatalog,
    export: export_pb2_grpc.ExportServiceAsyncStub,
) -> FloatArray:
    """Returns the end of the source, float32 [n, channels] at the model's sample rate, for GenerationParameters.

    Raises InvalidArgument if the model cannot continue audio, if the continuation is invalid, or if export has no
    finished audio of the source; DataLoss or AioRpcError if the audio does not arrive completely.
    """
    if Capability.CONTINUATION not in info.capabilities:
        raise unsupported_error("continuation", info.name, Capability.CONTINUATION, await _list_capable_models(catalog))
    source_id = check_continuation("continuation", continuation.source_id, continuation.seconds)
    request = export_pb2.StreamAudioRequest(
        generation_id=source_id,
        level=audio_pb2.AUDIO_LEVEL_FINAL,
        sample_rate_hz=info.sample_rate_hz,
        channels=info.channels,
        last_seconds=continuation.seconds or DEFAULT_CONTINUATION_SECONDS,
    )
    call = export.StreamAudio(request, timeout=time_left(FETCH_TIMEOUT_SECONDS))
    try:
        return await _receive(call)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        raise InvalidArgument(
            "continuation.source_id",
            f"there is no finished generation or clip with id {request.generation_id}",
            reason="UNKNOWN_SOURCE",
        ) from error
    finally:
        call.cancel()


async def _receive(call: grpc.aio.UnaryStreamCall[Any, export_pb2.StreamAudioResponse]) -> FloatArray:
    reader: PcmReader | None = None
    is_complete = False
    pcm = bytearray()
    async for part in call:
        match part.WhichOneof("part"):
            case "header":
                reader = PcmReader(part.header)
            case "chunk" if reader is not None:
                pcm += reader.accept(part.chunk)
            case "end" if reader is not None:
                reader.finish(part.end)
                is_complete = True
    if reader is None or not is_complete:
        raise DataLoss("the audio to continue from ended before it was complete", reason="SOURCE_BROKE_OFF")
    return np.frombuffer(pcm, "<f4").astype(np.float32, copy=False).reshape(-1, reader.header.channels)


async def _list_capable_models(catalog: ModelCatalog) -> list[str]:
    """Returns the names of the models that can continue audio."""
    names = []
    for name in catalog.names:
        try:
            info = await catalog.describe(name)
        except ServiceError:
            continue  # The model is unusable at the moment.
        if Capability.CONTINUATION in info.capabilities:
            names.append(name)
    return names
