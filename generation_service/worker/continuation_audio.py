"""What music goes on from: the end of a finished generation or of a clip, as export has it."""

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
from generation_service.models.base import FloatArray, ModelInfo
from generation_service.models.catalog import ModelCatalog
from service_runtime.rpc.deadlines import time_left
from service_runtime.validation import check_continuation

FETCH_SECONDS = 60.0
"""Longest that the audio may take to come; export resamples ten minutes in about one."""


async def prompt_audio(
    continuation: storage_pb2.Continuation,
    info: ModelInfo,
    catalog: ModelCatalog,
    export: export_pb2_grpc.ExportServiceAsyncStub,
) -> FloatArray:
    """The end of the source, float32 [n, channels] at the model's rate, ready for GenerationParameters.

    Raises InvalidArgument for a model that can't continue, for what is no continuation, and for a source that export
    has no finished audio of; DataLoss or AioRpcError where it did not come whole.
    """
    if not info.can_continue:
        raise InvalidArgument("continuation", f"model {info.name!r} can't continue audio; {await _who_can(catalog)}")
    source_id = check_continuation("continuation", continuation.source_id, continuation.seconds)
    request = export_pb2.StreamAudioRequest(
        generation_id=source_id,
        level=audio_pb2.AUDIO_LEVEL_FINAL,
        sample_rate_hz=info.sample_rate_hz,
        channels=info.channels,
        last_seconds=continuation.seconds or DEFAULT_CONTINUATION_SECONDS,
    )
    call = export.StreamAudio(request, timeout=time_left(FETCH_SECONDS))
    try:
        return await _received(call)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        raise InvalidArgument(
            "continuation.source_id",
            f"there is no finished generation and no clip {request.generation_id}",
            reason="UNKNOWN_SOURCE",
        ) from error
    finally:
        call.cancel()


async def _received(call: grpc.aio.UnaryStreamCall[Any, export_pb2.StreamAudioResponse]) -> FloatArray:
    reader: PcmReader | None = None
    is_whole = False
    pcm = bytearray()
    async for part in call:
        match part.WhichOneof("part"):
            case "header":
                reader = PcmReader(part.header)
            case "chunk" if reader is not None:
                pcm += reader.accept(part.chunk)
            case "end" if reader is not None:
                reader.finish(part.end)
                is_whole = True
    if reader is None or not is_whole:
        raise DataLoss("the audio to go on from broke off", reason="SOURCE_BROKE_OFF")
    return np.frombuffer(pcm, "<f4").astype(np.float32, copy=False).reshape(-1, reader.header.channels)


async def _who_can(catalog: ModelCatalog) -> str:
    able = []
    for name in catalog.names:
        try:
            info = await catalog.describe(name)
        except ServiceError:
            continue  # It can't be used for anything now.
        if info.can_continue:
            able.append(name)
    if not able:
        return "no model here can; `dgx-music models pull musicgen-small` gets one"
    return f"models that can: {', '.join(able)}"
