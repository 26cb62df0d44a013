"""Streams the audio of a generation that may not have started yet, until it ends or can no longer arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import grpc
import grpc.aio

from dgx_music.export.v1 import export_pb2_grpc
from dgx_music.export.v1.export_pb2 import StreamAudioRequest, StreamAudioResponse
from gateway.rpc.generation_watches import GenerationWatches
from gateway.rpc.service_client import ServiceClient
from service_runtime.validation import check_uuid

DEFAULT_WAIT_SECONDS = 3600.0
"""How long to wait for audio if the request does not say."""


async def stream_audio(
    watches: GenerationWatches,
    export: ServiceClient[export_pb2_grpc.ExportServiceAsyncStub],
    request: StreamAudioRequest,
) -> AsyncGenerator[StreamAudioResponse, None]:
    """Yields the audio from export while watching the generation at storage.

    Without the watch, a listener to a generation that fails or is cancelled before its first frame would wait in vain.
    An id that storage does not know may be a clip's, whose audio is either available now or not at all.

    Raises NotFound immediately for an unknown id, and FailedPrecondition once the generation has failed or was
    cancelled.
    """
    generation_id = check_uuid("generation_id", request.generation_id)  # Storage would name its own field.
    waiting = StreamAudioRequest()
    waiting.CopyFrom(request)
    waiting.wait_seconds = request.wait_seconds or DEFAULT_WAIT_SECONDS
    async with watches.join(generation_id) as watch:
        try:
            await watch.require_possible()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            async with aclosing(_stream_clip(export, request, error)) as responses:
                async for clip_response in responses:
                    yield clip_response
            return
        # A failure cancels the call to export. Waiting for either at each chunk would take half of the gateway's time.
        responses = export.call_server_stream(export.stub.StreamAudio, waiting, watch.cancelling)
        try:
            async with aclosing(responses):
                async for response in responses:
                    yield response
        except asyncio.CancelledError:
            watch.raise_if_impossible()
            raise


async def _stream_clip(
    export: ServiceClient[export_pb2_grpc.ExportServiceAsyncStub], request: StreamAudioRequest, not_found: Exception
) -> AsyncGenerator[StreamAudioResponse, None]:
    """Yields the audio that export has now. Raises `not_found`, storage's error, if export has none either."""
    request.wait_seconds = 0.0
    async with aclosing(export.call_server_stream(export.stub.StreamAudio, request)) as audio:
        try:
            yield await anext(audio)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise not_found from error
            raise
        async for response in audio:
            yield response
