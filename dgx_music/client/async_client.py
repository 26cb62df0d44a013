"""`AsyncClient`: music from text, with `await`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Unpack

import grpc.aio

from dgx_music.client.async_generation import AsyncAudioStream, AsyncGeneration
from dgx_music.client.audio_listening import ListenRequest
from dgx_music.client.config import load_config
from dgx_music.client.connection import STREAM_TIMEOUT_SECONDS, Connection
from dgx_music.client.file_saving import FileRequest, choose_output, get_generation, render, save_file
from dgx_music.client.generation_options import (
    FileOptions,
    GenerationOptions,
    GenerationRequest,
    build_output,
    build_request,
    build_requests,
    is_id,
)
from dgx_music.client.history_query import HistoryFilters, list_generations
from dgx_music.client.option_signature import spell_out
from dgx_music.client.token_admin import AsyncTokens
from dgx_music.errors import ServiceError
from dgx_music.export.v1.export_pb2 import ImportClipRequest, ImportClipResponse, RenderResponse
from dgx_music.gateway.v1 import gateway_pb2_grpc
from dgx_music.generation.v1.generation_pb2 import ListModelsRequest, Model
from dgx_music.limits import MAX_BATCH_SIZE, MAX_CHUNK_BYTES
from dgx_music.storage.v1.storage_pb2 import (
    BatchCreateGenerationsRequest,
)
from dgx_music.storage.v1.storage_pb2 import Generation as Message

CANCEL_TIMEOUT_SECONDS = 10.0
"""For cancelling a generation whose caller is leaving."""


class AsyncClient:
    """A client of DGX Music for asyncio; `dgx_music.Client` is the same without `await`.

        async with AsyncClient() as client:
            generation = await client.generate("lo-fi beat with a dusty piano", duration=16)
            await generation.save("beat.mp3")

    Every method raises `dgx_music.errors`: InvalidArgument names the argument at fault, Unauthenticated and
    PermissionDenied are about the token, ResourceExhausted says when to retry, and ConnectionLost that no server
    answers. A call that is safe to repeat is repeated a few times first if the server is not reached; creations are
    safe, because the client chooses a request_id.

    A client belongs to the event loop on which it is first used.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        token: str | None = None,
        tls_ca: str | os.PathLike[str] | None = None,
        tls_certificate: str | os.PathLike[str] | None = None,
        tls_key: str | os.PathLike[str] | None = None,
        client_name: str | None = None,
        timeout: float = 30.0,
        wait_if_busy: float = 0.0,
        reconnect_timeout: float = 60.0,
    ) -> None:
        """What is None is read from the same environment variables as the command line reads, or else from its config
        file: DGX_MUSIC_GATEWAY_ADDRESS, DGX_MUSIC_TOKEN or DGX_MUSIC_TOKEN_FILE, DGX_MUSIC_TLS_CA,
        DGX_MUSIC_TLS_CERTIFICATE, DGX_MUSIC_TLS_KEY, DGX_MUSIC_CLIENT_NAME.

        `address` is `host:port` or `unix:/path`; default 127.0.0.1:50050, where `dgx-music serve` listens. `tls_ca` is
        the file of the server's certificate authority, or "system"; with it, the connection uses TLS.

        `timeout` is the deadline of a call in seconds; waiting for music and listening have their own. If the server is
        busy, a call is repeated when the server says, for at most `wait_if_busy` seconds. Waiting, listening and
        downloads go on after a lost connection if the server is back within `reconnect_timeout` seconds.

        Raises ValueError if a setting is invalid, and OSError if a file of the settings can't be read.
        """
        config = load_config(
            {
                "address": address,
                "token": token,
                "tls_ca": tls_ca,
                "tls_certificate": tls_certificate,
                "tls_key": tls_key,
                "client_name": client_name,
            }
        )
        self._connection = Connection(
            config, timeout=timeout, wait_if_busy=wait_if_busy, reconnect_timeout=reconnect_timeout
        )
        self.tokens = AsyncTokens(self._connection)
        """Creates, lists and revokes tokens."""

    @property
    def address(self) -> str:
        """The address of the server."""
        return self._connection.config.address

    @property
    def music(self) -> gateway_pb2_grpc.MusicServiceAsyncStub:
        """The gRPC stub of `MusicService`, for what has no method here. Its calls raise grpc.aio.AioRpcError, and
        take a `timeout`."""
        return self._connection.music

    async def aclose(self) -> None:
        """Closes the connection and ends all calls. Closing twice does nothing."""
        await self._connection.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.address}>"

    @spell_out(GenerationOptions)
    async def submit(self, prompt: str, **options: Unpack[GenerationOptions]) -> AsyncGeneration:
        """Queues a generation and returns it at once; see `GenerationOptions` for the options and their units."""
        return self._wrap(await self._create(prompt, options))

    @spell_out(GenerationOptions)
    async def submit_many(
        self, requests: Iterable[str | GenerationRequest], **options: Unpack[GenerationOptions]
    ) -> list[AsyncGeneration]:
        """Queues a generation for each request, a prompt or a dictionary with a prompt and options, which precede those
        that are given for all.

        Up to 100 are created all or none; more in groups of 100. An error names the request: `requests[2].prompt`.
        """
        messages = build_requests(requests, options)
        created: list[AsyncGeneration] = []
        for start in range(0, len(messages), MAX_BATCH_SIZE):
            batch = BatchCreateGenerationsRequest(requests=messages[start : start + MAX_BATCH_SIZE])
            method = self.music.BatchCreateGenerations
            response = await self._connection.call(method, batch, is_repeatable=True)
            created += map(self._wrap, response.generations)
        return created

    @spell_out(GenerationOptions)
    async def generate(
        self,
        prompt: str,
        *,
        timeout: float | None = None,
        on_progress: Callable[[AsyncGeneration], object] | None = None,
        **options: Unpack[GenerationOptions],
    ) -> AsyncGeneration:
        """Queues a generation, waits until it is completed, and returns it; see `GenerationOptions` for the options.

        `on_progress` is called with the generation at each change. If this is cancelled, or `on_progress` raises, the
        generation is cancelled too. Raises GenerationFailed or GenerationCancelled, and DeadlineExceeded
        after `timeout` seconds; it then goes on nevertheless.
        """
        creation = asyncio.ensure_future(self.submit(prompt, **options))
        try:
            generation = await asyncio.shield(creation)
            return await generation.wait(timeout, on_progress)
        except ServiceError:
            raise
        except BaseException:
            with suppress(ServiceError, TimeoutError):
                async with asyncio.timeout(CANCEL_TIMEOUT_SECONDS):
                    # A creation that is on its way is awaited: what has no id can't be cancelled.
                    await (await creation).cancel()
            raise

    @spell_out(GenerationOptions)
    def stream(
        self,
        source: str | AsyncGeneration,
        *,
        start_frame: int = 0,
        timeout: float | None = None,
        **options: Unpack[GenerationOptions],
    ) -> AsyncAudioStream:
        """Returns the audio of a new generation with this prompt, while it is being generated: an async iterator of
        chunks. `source` may also be a generation, or the id of one or of a clip.

        It starts with `async with` or with the first chunk. Leaving it early does not cancel the generation; see
        `stream.generation`. Raises DeadlineExceeded after `timeout` seconds.
        """
        request = ListenRequest("", start_frame)
        if isinstance(source, AsyncGeneration) or is_id(source):
            return AsyncAudioStream(self._connection, source, request, timeout)
        return AsyncAudioStream(self._connection, lambda: self.submit(source, **options), request, timeout)

    async def get(self, id: str) -> AsyncGeneration:
        """Returns a generation by its id. Raises NotFound if there is none."""
        return self._wrap(await get_generation(self._connection, id))

    @spell_out(HistoryFilters)
    async def history(self, **filters: Unpack[HistoryFilters]) -> AsyncGenerator[AsyncGeneration, None]:
        """Yields the generations, newest first, that match all filters; see `HistoryFilters`. Reads them in pages."""
        async for message in list_generations(self._connection, filters):
            yield self._wrap(message)

    async def models(self) -> list[Model]:
        """Returns the models: the default one first, then the others by name. `problem` says why one can't be used."""
        return list((await self._connection.call(self.music.ListModels, ListModelsRequest())).models)

    async def cancel(self, id: str) -> AsyncGeneration:
        """Cancels a generation. Raises FailedPrecondition if it is finished."""
        return await self._refer(id).cancel()

    async def retry(self, id: str) -> AsyncGeneration:
        """Queues a failed generation again. Raises FailedPrecondition in any other state."""
        return await self._refer(id).retry()

    async def delete(self, id: str) -> None:
        """Deletes a generation with its files. Raises FailedPrecondition while it is processing."""
        await self._refer(id).delete()

    async def rate(self, id: str, rating: int) -> AsyncGeneration:
        """Sets your rating of a generation, 1 to 5, or removes it with 0."""
        return await self._refer(id).rate(rating)

    @spell_out(FileOptions)
    async def render(self, id: str, **options: Unpack[FileOptions]) -> RenderResponse:
        """Converts a finished generation on the server, and returns the new file's id and measurements.

        `download(id, path, render_id=…)` fetches it. The same options return the same file.
        """
        return await render(self._connection, id, build_output(options))

    @spell_out(FileOptions)
    async def download(
        self,
        id: str,
        path: str | os.PathLike[str] = ".",
        *,
        render_id: str | None = None,
        **options: Unpack[FileOptions],
    ) -> Path:
        """Saves the file of a generation, a clip or a render, like `Generation.save`; by default in this folder under
        its own name."""
        if render_id:
            return await save_file(self._connection, FileRequest(id, render_id), path)
        output = await choose_output(self._connection, id, path, options)
        return await save_file(self._connection, FileRequest(id, output=output), path)

    async def import_clip(self, path: str | os.PathLike[str]) -> ImportClipResponse:
        """Uploads an audio file as a clip, which `continue_from` and `stream` take, and returns what was measured.

        Raises InvalidArgument if the file is not audio, is damaged or is too long, and OSError if it can't be read.
        """
        with await asyncio.to_thread(open, os.path.expanduser(path), "rb") as file:

            async def read() -> AsyncIterator[ImportClipRequest]:
                while data := await asyncio.to_thread(file.read, MAX_CHUNK_BYTES):
                    yield ImportClipRequest(data=data)

            try:
                return await self.music.ImportClip(read(), timeout=STREAM_TIMEOUT_SECONDS)
            except grpc.aio.AioRpcError as error:
                raise self._connection.translate(error) from error

    async def _create(self, prompt: str, options: GenerationOptions) -> Message:
        request = build_request(prompt, options)
        return (await self._connection.call(self.music.CreateGeneration, request, is_repeatable=True)).generation

    def _wrap(self, message: Message) -> AsyncGeneration:
        return AsyncGeneration(self._connection, message)

    def _refer(self, id: str) -> AsyncGeneration:
        return self._wrap(Message(id=id))
