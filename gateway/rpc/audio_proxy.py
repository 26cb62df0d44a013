"""Streams the audio of a generation that may not have started yet, until it ends or can no longer arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import grpc
import grpc.aio

from dgx_music.errors import FailedPrecondition, NotFound
from dgx_music.export.v1 import export_pb2_grpc
from dgx_music.export.v1.export_pb2 import StreamAudioRequest, StreamAudioResponse
from dgx_music.storage.v1 import storage_pb2, storage_pb2_grpc
from dgx_music.storage.v1.storage_pb2 import Generation, WatchGenerationRequest, WatchGenerationResponse
from gateway.rpc.service_client import ServiceClient

DEFAULT_WAIT_SECONDS = 3600.0
"""How long to wait for audio if the request does not say."""


async def stream_audio(
    storage: ServiceClient[storage_pb2_grpc.StorageServiceAsyncStub],
    export: ServiceClient[export_pb2_grpc.ExportServiceAsyncStub],
    request: StreamAudioRequest,
) -> AsyncGenerator[StreamAudioResponse, None]:
    """Yields the audio from export while watching the generation at storage.

    Without the watch, a listener to a generation that fails or is cancelled before its first frame would wait in vain.
    An id that storage does not know may be a clip's, whose audio is either available now or not at all.

    Raises NotFound immediately for an unknown id, and FailedPrecondition once the generation has failed or was
    cancelled.
    """
    waiting = StreamAudioRequest()
    waiting.CopyFrom(request)
    waiting.wait_seconds = request.wait_seconds or DEFAULT_WAIT_SECONDS
    watch = WatchGenerationRequest(id=request.generation_id)
    async with (
        aclosing(storage.call_server_stream(storage.stub.WatchGeneration, watch)) as states,
        aclosing(export.call_server_stream(export.stub.StreamAudio, waiting)) as audio,
    ):
        try:
            current = (await anext(states)).generation
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            async with aclosing(_stream_clip(export, request, error)) as responses:
                async for clip_response in responses:
                    yield clip_response
            return
        _raise_if_terminal_failure(current)
        completed = asyncio.ensure_future(_wait_until_completed(current, states))
        next_response: asyncio.Future[StreamAudioResponse | None] | None = None
        try:
            while True:
                next_response = asyncio.ensure_future(anext(audio, None))
                if not completed.done():
                    await asyncio.wait({next_response, completed}, return_when=asyncio.FIRST_COMPLETED)
                if completed.done():
                    completed.result()
                response = await next_response
                if response is None:
                    return
                yield response
        finally:
            tasks = [task for task in (next_response, completed) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


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


async def _wait_until_completed(current: Generation, states: AsyncGenerator[WatchGenerationResponse, None]) -> None:
    if current.state == storage_pb2.GENERATION_STATE_COMPLETED:
        return
    async for state in states:
        _raise_if_terminal_failure(state.generation)
        if state.generation.state == storage_pb2.GENERATION_STATE_COMPLETED:
            return
    raise NotFound("generation", current.id, "it was deleted")


def _raise_if_terminal_failure(generation: Generation) -> None:
    match generation.state:
        case storage_pb2.GENERATION_STATE_FAILED:
            outcome, reason = f"failed: {generation.error_message}", "GENERATION_FAILED"
        case storage_pb2.GENERATION_STATE_CANCELLED:
            outcome, reason = "was cancelled", "GENERATION_CANCELLED"
        case _:
            return
    raise FailedPrecondition(
        f"there is no audio to play: generation {generation.id} {outcome}",
        reason=reason,
        metadata={"id": generation.id, "error_message": generation.error_message},
    )
