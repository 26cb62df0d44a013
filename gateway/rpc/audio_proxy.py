"""Listening to a generation that may not have begun: its audio, for as long as it can still come to an end."""

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
from gateway.rpc.service_client import Upstream

LONGEST_WAIT_SECONDS = 3600.0
"""How long to wait for audio where the listener does not say."""


async def listen(
    storage: Upstream[storage_pb2_grpc.StorageServiceAsyncStub],
    export: Upstream[export_pb2_grpc.ExportServiceAsyncStub],
    request: StreamAudioRequest,
) -> AsyncGenerator[StreamAudioResponse, None]:
    """The audio as export serves it, and beside it an eye on the generation at storage: without that, a listener to
    one that fails or is cancelled before its first frame would wait in vain. What storage does not know, a clip, is
    there or not.

    Raises NotFound for an unknown id at once, FailedPrecondition once the generation has failed or is cancelled.
    """
    waiting = StreamAudioRequest()
    waiting.CopyFrom(request)
    waiting.wait_seconds = request.wait_seconds or LONGEST_WAIT_SECONDS
    async with (
        aclosing(
            storage.stream(storage.stub.WatchGeneration, WatchGenerationRequest(id=request.generation_id))
        ) as states,
        aclosing(export.stream(export.stub.StreamAudio, waiting)) as audio,
    ):
        try:
            first = (await anext(states)).generation
        except grpc.aio.AioRpcError as unknown:
            if unknown.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            async with aclosing(_clip(export, request, unknown)) as parts:
                async for heard in parts:
                    yield heard
            return
        _refuse_broken(first)
        completed = asyncio.ensure_future(_until_completed(first, states))
        part: asyncio.Future[StreamAudioResponse | None] | None = None
        try:
            while True:
                part = asyncio.ensure_future(anext(audio, None))
                if not completed.done():
                    await asyncio.wait({part, completed}, return_when=asyncio.FIRST_COMPLETED)
                if completed.done():
                    completed.result()
                response = await part
                if response is None:
                    return
                yield response
        finally:
            tasks = [task for task in (part, completed) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _clip(
    export: Upstream[export_pb2_grpc.ExportServiceAsyncStub], request: StreamAudioRequest, unknown: Exception
) -> AsyncGenerator[StreamAudioResponse, None]:
    """The audio that is there now; raises `unknown` where there is none."""
    request.wait_seconds = 0.0
    async with aclosing(export.stream(export.stub.StreamAudio, request)) as audio:
        try:
            yield await anext(audio)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise unknown from error
            raise
        async for response in audio:
            yield response


async def _until_completed(first: Generation, states: AsyncGenerator[WatchGenerationResponse, None]) -> None:
    if first.state == storage_pb2.GENERATION_STATE_COMPLETED:
        return
    async for state in states:
        _refuse_broken(state.generation)
        if state.generation.state == storage_pb2.GENERATION_STATE_COMPLETED:
            return
    raise NotFound("generation", first.id, "it was deleted")


def _refuse_broken(generation: Generation) -> None:
    match generation.state:
        case storage_pb2.GENERATION_STATE_FAILED:
            what, reason = f"failed: {generation.error_message}", "GENERATION_FAILED"
        case storage_pb2.GENERATION_STATE_CANCELLED:
            what, reason = "was cancelled", "GENERATION_CANCELLED"
        case _:
            return
    raise FailedPrecondition(
        f"there is no audio to listen to: generation {generation.id} {what}",
        reason=reason,
        metadata={"id": generation.id, "error_message": generation.error_message},
    )
