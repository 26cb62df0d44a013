"""`Client`: music from text, by calls that block."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Unpack, cast

from dgx_music.access.v1.access_pb2 import CreateTokenResponse, Token
from dgx_music.client.async_client import AsyncClient
from dgx_music.client.async_generation import AsyncGeneration
from dgx_music.client.blocking.blocking_stub import BlockingStub
from dgx_music.client.blocking.loop_thread import LoopThread
from dgx_music.client.blocking.sync_generation import AudioStream, Generation
from dgx_music.client.generation_options import FileOptions, GenerationOptions, GenerationRequest
from dgx_music.client.history_query import HistoryFilters
from dgx_music.client.option_signature import spell_out
from dgx_music.client.token_admin import AsyncTokens, TokenOptions
from dgx_music.export.v1.export_pb2 import ImportClipResponse, RenderResponse
from dgx_music.gateway.v1 import gateway_pb2_grpc
from dgx_music.generation.v1.generation_pb2 import Model


class Client:
    """A client of DGX Music.

        with Client() as client:
            generation = client.generate("lo-fi beat with a dusty piano", duration=16)
            generation.save("beat.mp3")

    Every method raises `dgx_music.errors`: InvalidArgument names the argument at fault, Unauthenticated and
    PermissionDenied are about the token, ResourceExhausted says when to retry, and ConnectionLost that no server
    answers. A call that is safe to repeat is repeated a few times first if the server is not reached; creations are
    safe, because the client chooses a request_id.

    Any number of threads may use a client at the same time. It does its work on an event loop in a thread of its own,
    so it also works where a loop is running, as in a notebook; but not after a fork: create one in each process.
    Ctrl-C during a call cancels the call, and during `generate` the generation too.
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
        self._inner = AsyncClient(
            address,
            token=token,
            tls_ca=tls_ca,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
            client_name=client_name,
            timeout=timeout,
            wait_if_busy=wait_if_busy,
            reconnect_timeout=reconnect_timeout,
        )
        self._thread = LoopThread(self._inner.aclose)
        self.tokens = Tokens(self._thread, self._inner.tokens)
        """Creates, lists and revokes tokens."""

    @property
    def address(self) -> str:
        """The address of the server."""
        return self._inner.address

    @property
    def music(self) -> gateway_pb2_grpc.MusicServiceStub:
        """The methods of `MusicService` with one request, for what has no method here: they take a request and a
        `timeout`, block, and raise `dgx_music.errors`."""
        return cast(gateway_pb2_grpc.MusicServiceStub, BlockingStub(self._thread, self._inner._connection))

    def close(self) -> None:
        """Closes the connection and ends all calls. Closing twice does nothing."""
        self._thread.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.address}>"

    @spell_out(GenerationOptions)
    def submit(self, prompt: str, **options: Unpack[GenerationOptions]) -> Generation:
        """Queues a generation and returns it at once; see `GenerationOptions` for the options and their units."""
        return self._wrap(self._thread.run(self._inner.submit(prompt, **options)))

    @spell_out(GenerationOptions)
    def submit_many(
        self, requests: Iterable[str | GenerationRequest], **options: Unpack[GenerationOptions]
    ) -> list[Generation]:
        """Queues a generation for each request, a prompt or a dictionary with a prompt and options, which precede those
        that are given for all.

        Up to 100 are created all or none; more in groups of 100. An error names the request: `requests[2].prompt`.
        """
        return [self._wrap(one) for one in self._thread.run(self._inner.submit_many(list(requests), **options))]

    @spell_out(GenerationOptions)
    def generate(
        self,
        prompt: str,
        *,
        timeout: float | None = None,
        on_progress: Callable[[Generation], object] | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Generation:
        """Queues a generation, waits until it is completed, and returns it; see `GenerationOptions` for the options.

        `on_progress` is called with the generation at each change, in this thread. Ctrl-C cancels the generation.
        Raises GenerationFailed or GenerationCancelled, and DeadlineExceeded after `timeout` seconds; it
        then goes on nevertheless.
        """
        events: SimpleQueue[AsyncGeneration] = SimpleQueue()
        on_change = None if on_progress is None else events.put
        report = on_progress or (lambda generation: None)
        work = self._inner.generate(prompt, timeout=timeout, on_progress=on_change, **options)
        return self._wrap(self._thread.run(work, events, lambda inner: report(self._wrap(inner))))

    @spell_out(GenerationOptions)
    def stream(
        self,
        source: str | Generation,
        *,
        start_frame: int = 0,
        timeout: float | None = None,
        **options: Unpack[GenerationOptions],
    ) -> AudioStream:
        """Returns the audio of a new generation with this prompt, while it is being generated: an iterator of chunks.
        `source` may also be a generation, or the id of one or of a clip.

        It starts with `with` or with the first chunk. Leaving it early does not cancel the generation; see
        `stream.generation`. Raises DeadlineExceeded after `timeout` seconds.
        """
        inner = source.id if isinstance(source, Generation) else source
        stream = self._inner.stream(inner, start_frame=start_frame, timeout=timeout, **options)
        return AudioStream(self._thread, stream)

    def get(self, id: str) -> Generation:
        """Returns a generation by its id. Raises NotFound if there is none."""
        return self._wrap(self._thread.run(self._inner.get(id)))

    @spell_out(HistoryFilters)
    def history(self, **filters: Unpack[HistoryFilters]) -> Iterator[Generation]:
        """Yields the generations, newest first, that match all filters; see `HistoryFilters`. Reads them in pages."""
        return map(self._wrap, self._thread.iterate(self._inner.history(**filters)))

    def models(self) -> list[Model]:
        """Returns the models: the default one first, then the others by name. `problem` says why one can't be used."""
        return self._thread.run(self._inner.models())

    def cancel(self, id: str) -> Generation:
        """Cancels a generation. Raises FailedPrecondition if it is finished."""
        return self._wrap(self._thread.run(self._inner.cancel(id)))

    def retry(self, id: str) -> Generation:
        """Queues a failed generation again. Raises FailedPrecondition in any other state."""
        return self._wrap(self._thread.run(self._inner.retry(id)))

    def delete(self, id: str) -> None:
        """Deletes a generation with its files. Raises FailedPrecondition while it is processing."""
        self._thread.run(self._inner.delete(id))

    def rate(self, id: str, rating: int) -> Generation:
        """Sets your rating of a generation, 1 to 5, or removes it with 0."""
        return self._wrap(self._thread.run(self._inner.rate(id, rating)))

    @spell_out(FileOptions)
    def render(self, id: str, **options: Unpack[FileOptions]) -> RenderResponse:
        """Converts a finished generation on the server, and returns the new file's id and measurements.

        `download(id, path, render_id=…)` fetches it. The same options return the same file.
        """
        return self._thread.run(self._inner.render(id, **options))

    @spell_out(FileOptions)
    def download(
        self,
        id: str,
        path: str | os.PathLike[str] = ".",
        *,
        render_id: str | None = None,
        **options: Unpack[FileOptions],
    ) -> Path:
        """Saves the file of a generation, a clip or a render, like `Generation.save`; by default in this folder under
        its own name."""
        return self._thread.run(self._inner.download(id, path, render_id=render_id, **options))

    def import_clip(self, path: str | os.PathLike[str]) -> ImportClipResponse:
        """Uploads an audio file as a clip, which `continue_from` and `stream` take, and returns what was measured.

        Raises InvalidArgument if the file is not audio, is damaged or is too long, and OSError if it can't be read.
        """
        return self._thread.run(self._inner.import_clip(path))

    def _wrap(self, inner: AsyncGeneration) -> Generation:
        return Generation(self._thread, inner)


class Tokens:
    """Creates, lists and revokes tokens; needs a token with the scope admin, or a server on this machine."""

    def __init__(self, thread: LoopThread, inner: AsyncTokens) -> None:
        self._thread, self._inner = thread, inner

    @spell_out(TokenOptions)
    def create(self, name: str, **options: Unpack[TokenOptions]) -> CreateTokenResponse:
        """Creates a token; see `TokenOptions`. Its `secret` is what `Client(token=…)` takes, and is returned only now.

        Raises AlreadyExists if a valid token has this name.
        """
        return self._thread.run(self._inner.create(name, **options))

    def list(self) -> Iterator[Token]:
        """Yields all tokens, newest first, including those that have expired or were revoked."""
        return self._thread.iterate(self._inner.list())

    def revoke(self, id: str) -> Token:
        """Revokes a token: its open calls end within 5 s. Revoking it again returns the same."""
        return self._thread.run(self._inner.revoke(id))
