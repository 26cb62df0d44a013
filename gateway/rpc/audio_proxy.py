"""Streams the audio of a generation that may not have started yet, until it ends or can no longer arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import grpc
import grpc.aio

from dgx_music.audio.v1.audio_pb2 import AUDIO_LEVEL_FINAL, AUDIO_LEVEL_LIVE, AudioHeader
from dgx_music.errors import Aborted, Unavailable
from dgx_music.export.v1.export_pb2 import StreamAudioRequest, StreamAudioResponse
from gateway.rpc.export_servers import ExportServers
from gateway.rpc.generation_watches import GenerationWatch, GenerationWatches, Route
from service_runtime.validation import check_uuid

DEFAULT_WAIT_SECONDS = 3600.0
"""How long to wait for audio if the request does not say."""
RETRY_SECONDS = 1.0
"""How often the server is tried that had the samples and can't be reached, unless another one gets them before."""


async def stream_audio(
    watches: GenerationWatches, servers: ExportServers, request: StreamAudioRequest
) -> AsyncGenerator[StreamAudioResponse, None]:
    """Yields the audio from export while watching the generation at storage.

    Without the watch, a listener to a generation that fails or is cancelled before its first frame would wait in vain.
    An id that storage does not know may be a clip's, whose audio is either available now or not at all.

    Raises NotFound immediately for an unknown id, and FailedPrecondition once the generation has failed or was
    cancelled.
    """
    generation_id = check_uuid("generation_id", request.generation_id)  # Storage would name its own field.
    async with watches.join(generation_id) as watch:
        try:
            await watch.require_possible()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            async with aclosing(_stream_clip(servers, request, error)) as responses:
                async for clip_response in responses:
                    yield clip_response
            return
        async with aclosing(_Listening(watch, servers, request).stream()) as responses:
            async for response in responses:
                yield response


class _Listening:
    """Listens at the export server that has the audio, which may be known only later, and may change before the first
    sample: before the end of the generation, that is the server that receives it, and then any one."""

    def __init__(self, watch: GenerationWatch, servers: ExportServers, request: StreamAudioRequest) -> None:
        self._watch, self._servers = watch, servers
        self._request = StreamAudioRequest()
        self._request.CopyFrom(request)
        self._header: AudioHeader | None = None
        """Set when there is audio."""
        self._heard_at = ""
        """Address of the server whose samples are heard, as soon as it is known."""

    async def stream(self) -> AsyncGenerator[StreamAudioResponse, None]:
        """Yields the responses of one call, the last that is made: the one that has audio."""
        loop, wait_seconds = asyncio.get_running_loop(), self._request.wait_seconds or DEFAULT_WAIT_SECONDS
        deadline = loop.time() + wait_seconds
        while True:
            route = self._watch.route
            self._request.wait_seconds = wait_seconds
            try:
                async with aclosing(self._listen(route)) as responses:
                    async for response in responses:
                        if self._header is None:
                            self._header, self._heard_at = response.header, self._address(route)
                        yield response
                return
            except asyncio.CancelledError:
                self._watch.raise_if_impossible()
                if self._holds(route, self._watch.route) or _is_cancelled():
                    raise
                if self._header is not None:
                    raise self._superseded_error() from None
            except Unavailable:
                # The attempt has probably ended with its server: another one will get the next attempt.
                if self._header is not None or route.is_finished or not self._address(route) or loop.time() > deadline:
                    raise
                await self._watch.wait_for_change(RETRY_SECONDS)
                self._watch.raise_if_impossible()
            wait_seconds = max(0.0, deadline - loop.time())

    async def _listen(self, route: Route) -> AsyncGenerator[StreamAudioResponse, None]:
        """Yields the audio from where the route leads. Raises CancelledError when there will be none any more."""
        async with self._servers.at(self._address(route)) as export:
            # The call is cancelled. Waiting for either at each chunk would take half of the gateway's time.
            responses = export.call_server_stream(
                export.stub.StreamAudio,
                self._request,
                lambda call: self._watch.cancelling(call, lambda current: self._holds(route, current)),
            )
            async with aclosing(responses):
                async for response in responses:
                    yield response

    def _address(self, route: Route) -> str:
        """Returns the address of the only server that has the audio; empty for any."""
        if self._request.render_id or self._request.level == AUDIO_LEVEL_FINAL:
            return ""
        return "" if route.is_finished and self._request.level != AUDIO_LEVEL_LIVE else route.address

    def _holds(self, route: Route, current: Route) -> bool:
        """Whether the audio is still where the call asks for it. The samples that a listener hears remain where they
        are at the end of the generation, but not if another attempt has begun elsewhere."""
        if self._header is None:
            return (current.address, current.is_finished) == (route.address, route.is_finished)
        if self._header.level == AUDIO_LEVEL_FINAL or not current.address:
            return True
        if not self._heard_at and current.attempt == self._header.attempt:
            self._heard_at = current.address  # The call went to any server, and has found the right one.
        return current.address == self._heard_at

    def _superseded_error(self) -> Aborted:
        return Aborted(
            f"another attempt at generation {self._request.generation_id} has begun at another server; to hear it, "
            "retry with start_frame set to the number of frames that you have",
            reason="ATTEMPT_BROKE_OFF",
        )


async def _stream_clip(
    servers: ExportServers, request: StreamAudioRequest, not_found: Exception
) -> AsyncGenerator[StreamAudioResponse, None]:
    """Yields the audio that export has now. Raises `not_found`, storage's error, if export has none either."""
    request.wait_seconds = 0.0
    export = servers.any
    async with aclosing(export.call_server_stream(export.stub.StreamAudio, request)) as audio:
        try:
            yield await anext(audio)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise not_found from error
            raise
        async for response in audio:
            yield response


def _is_cancelled() -> bool:
    """Whether this task is cancelled, because the listener has left, and not only its call."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
