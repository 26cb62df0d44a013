"""A generation whose methods are awaited, and the stream of its audio."""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Unpack

from dgx_music.audio.v1.audio_pb2 import AUDIO_LEVEL_FINAL, AudioHeader
from dgx_music.client.audio_listening import AudioChunk, ListenRequest, listen, to_samples
from dgx_music.client.connection import STREAM_TIMEOUT_SECONDS, Connection
from dgx_music.client.file_saving import FileRequest, choose_output, get_generation, read_file, save_file
from dgx_music.client.generation_options import FileOptions, build_output
from dgx_music.client.notebook_player import render_html
from dgx_music.client.option_signature import spell_out
from dgx_music.client.shaping.derivable_generation import DerivableGeneration
from dgx_music.client.stem_files import Stems, save_stems
from dgx_music.client.waveform_drawing import Waveform
from dgx_music.errors import DeadlineExceeded, NotFound, ServiceError
from dgx_music.export.v1.export_pb2 import GetWaveformRequest
from dgx_music.generation.v1.generation_pb2 import GetMidiRequest, StreamStemsRequest
from dgx_music.storage.v1.storage_pb2 import (
    CancelGenerationRequest,
    DeleteGenerationRequest,
    RateGenerationRequest,
    RetryGenerationRequest,
    WatchGenerationRequest,
)

if TYPE_CHECKING:
    from dgx_music.client.audio_listening import Samples

PARTS_TIMEOUT_SECONDS = 3600.0
"""For the notes of an hour of music."""


class AsyncGeneration(DerivableGeneration):
    """A request for music and its result. Its fields are as of the last call of one of its methods.

    Every method raises `dgx_music.errors`.
    """

    async def watch(self, timeout: float | None = None) -> AsyncGenerator[AsyncGeneration, None]:
        """Yields this generation, as it is now and after each change, until it is finished.

        Goes on after a lost connection. Raises DeadlineExceeded after `timeout` seconds, and NotFound if it is deleted.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        connection, request = self._connection, WatchGenerationRequest(id=self.id)
        reconnection = connection.reconnection(deadline)
        while True:
            try:
                async with aclosing(connection.stream(connection.music.WatchGeneration, request, deadline)) as changes:
                    async for change in changes:
                        reconnection.responded()
                        self._message = change.generation
                        yield self
                        if self.is_finished:
                            return
                raise NotFound("generation", self.id, "it was deleted")
            except DeadlineExceeded as error:
                waited = STREAM_TIMEOUT_SECONDS if timeout is None else timeout
                raise DeadlineExceeded(
                    f"generation {self.id} is still {self.state} after {waited:g} s; it goes on, so wait() again",
                    reason="NOT_FINISHED_YET",
                    metadata={"id": self.id},
                ) from error
            except ServiceError as error:
                await reconnection.wait(error)

    async def wait(
        self, timeout: float | None = None, on_progress: Callable[[AsyncGeneration], object] | None = None
    ) -> AsyncGeneration:
        """Waits until it is completed, and returns it. `on_progress` is called with it at each change.

        Survives a restart of the server. Raises GenerationFailed or GenerationCancelled, NotFound if it
        is deleted, and DeadlineExceeded after `timeout` seconds; it then goes on nevertheless.
        """
        async with aclosing(self.watch(timeout)) as changes:
            async for change in changes:
                if on_progress is not None:
                    on_progress(change)
        self.raise_if_unsuccessful()
        return self

    async def refresh(self) -> AsyncGeneration:
        """Reads its fields again, and returns it."""
        self._message = await get_generation(self._connection, self.id)
        return self

    @spell_out(FileOptions)
    async def save(self, path: str | os.PathLike[str], **options: Unpack[FileOptions]) -> Path:
        """Saves the finished file, or another format of it: `save("a.mp3")` renders an MP3 if needed. Returns the
        path of the file.

        A folder takes the file under its own name. The file appears when it is complete, and replaces what was there.
        Raises InvalidArgument if the folder does not exist or an option is invalid, FailedPrecondition if it is not
        completed, DataLoss if the file is not the one that was recorded, and OSError if it can't be written.
        """
        output = await choose_output(self._connection, self.id, path, options)
        return await save_file(self._connection, FileRequest(self.id, output=output), path)

    @spell_out(FileOptions)
    async def read(self, **options: Unpack[FileOptions]) -> bytes:
        """Returns the bytes of the finished file, or of another format of it. Errors as of `save`."""
        file = io.BytesIO()
        await read_file(self._connection, FileRequest(self.id, output=build_output(options)), file)
        return file.getvalue()

    async def audio(self) -> Samples:
        """Returns the samples of the finished file: float32 [frames, channels] at `sample_rate` Hz, read-only.

        Waits until it is completed. Needs NumPy: raises ImportError without it.
        """
        to_samples(b"", 1)  # Before anything is transferred.
        pcm, channels = bytearray(), 1
        await self.wait()
        async with aclosing(listen(self._connection, ListenRequest(self.id, level=AUDIO_LEVEL_FINAL))) as parts:
            async for part in parts:
                if isinstance(part, AudioHeader):
                    channels = part.channels
                else:
                    pcm += part.pcm
        return to_samples(bytes(pcm), channels)

    async def midi(self) -> bytes:
        """Returns its notes as a standard MIDI file. Raises FailedPrecondition, which says why, if it knows none or
        it is not completed."""
        request = GetMidiRequest(generation_id=self.id)
        method = self._connection.music.GetMidi
        return (await self._connection.call(method, request, is_repeatable=True, timeout=PARTS_TIMEOUT_SECONDS)).midi

    async def stems(self, folder: str | os.PathLike[str]) -> Stems:
        """Saves its stems, such as drums and bass, as WAV files of 32-bit floats in a folder, which is created if
        it is missing, and returns their paths.

        Raises FailedPrecondition, which says why, if it has no stems or is not completed, DataLoss if they do not
        arrive completely, and OSError if a file can't be written.
        """
        target = Path(os.path.expanduser(folder))
        await asyncio.to_thread(target.mkdir, parents=True, exist_ok=True)
        request = StreamStemsRequest(generation_id=self.id)
        async with aclosing(self._connection.stream(self._connection.music.StreamStems, request)) as responses:
            return await save_stems(responses, target)

    async def waveform(self, points: int = 800) -> Waveform:
        """Returns the waveform of the finished file, for drawing, in 1 to 10000 points."""
        request = GetWaveformRequest(generation_id=self.id, points=points)
        return Waveform.from_message(await self._connection.call(self._connection.music.GetWaveform, request))

    async def to_html(self) -> str:
        """Returns a player with its waveform, for a notebook: `display(HTML(await generation.to_html()))`."""
        return await render_html(self)

    def stream(self, *, start_frame: int = 0, timeout: float | None = None) -> AsyncAudioStream:
        """Returns its audio from a frame on: live while it is being generated, afterwards from the file."""
        return AsyncAudioStream(self._connection, self, ListenRequest(self.id, start_frame), timeout)

    async def cancel(self) -> AsyncGeneration:
        """Cancels it, and returns it. Raises FailedPrecondition if it is finished."""
        request = CancelGenerationRequest(id=self.id)
        self._message = (await self._connection.call(self._connection.music.CancelGeneration, request)).generation
        return self

    async def retry(self) -> AsyncGeneration:
        """Queues it again after it has failed, and returns it. Raises FailedPrecondition in any other state."""
        request = RetryGenerationRequest(id=self.id)
        self._message = (await self._connection.call(self._connection.music.RetryGeneration, request)).generation
        return self

    async def delete(self) -> None:
        """Deletes it with its files. Raises FailedPrecondition while it is processing."""
        request = DeleteGenerationRequest(id=self.id)
        await self._connection.call(self._connection.music.DeleteGeneration, request)

    async def rate(self, rating: int) -> AsyncGeneration:
        """Sets your rating, 1 to 5, or removes it with 0, and returns it."""
        request = RateGenerationRequest(id=self.id, rating=rating)
        self._message = (await self._connection.call(self._connection.music.RateGeneration, request)).generation
        return self


class AsyncAudioStream:
    """The audio of a generation or a clip, chunk by chunk, as an async iterator and an async context manager.

    Every sample comes once, in order and verified. A lost connection is resumed, and if an attempt at the generation
    breaks off, the stream goes on with the next one from the same frame.
    """

    def __init__(
        self, connection: Connection, source: Source, request: ListenRequest | None = None, timeout: float | None = None
    ) -> None:
        """`source` is the generation, the id of one or of a clip, or a function that creates a generation."""
        self._connection, self._source, self._request = connection, source, request or ListenRequest("")
        self._timeout = timeout
        self._parts: AsyncGenerator[AudioHeader | AudioChunk, None] | None = None
        self._header: AudioHeader | None = None
        self.generation: AsyncGeneration | None = None
        """The generation; None for a clip, and before the stream has started."""

    async def start(self) -> AsyncAudioStream:
        """Waits for the first audio, as the first step of an iteration does. Starting twice does nothing."""
        if self._parts is None:
            self.generation = await self._find_generation()
            deadline = None if self._timeout is None else time.monotonic() + self._timeout
            self._parts = listen(self._connection, self._request, deadline)
        if self._header is None:
            header = await anext(self._parts)
            assert isinstance(header, AudioHeader)
            self._header = header
        return self

    async def _find_generation(self) -> AsyncGeneration | None:
        if isinstance(self._source, str):
            self._request.id = self._source
            with suppress(NotFound):  # It may be a clip.
                return AsyncGeneration(self._connection, await get_generation(self._connection, self._source))
            return None
        generation = self._source if isinstance(self._source, AsyncGeneration) else await self._source()
        self._request.id = generation.id
        return generation

    @property
    def header(self) -> AudioHeader:
        """What the server says about the audio. Raises RuntimeError before the stream has started."""
        if self._header is None:
            raise RuntimeError("the stream has not started: use `async with`, or call start() first")
        return self._header

    @property
    def sample_rate(self) -> int:
        """Hz. Raises RuntimeError before the stream has started."""
        return self.header.sample_rate_hz

    @property
    def channels(self) -> int:
        """1 or 2. Raises RuntimeError before the stream has started."""
        return self.header.channels

    @property
    def expected_frames(self) -> int | None:
        """Frames of the whole generation, if that is known. Raises RuntimeError before the stream has started."""
        return self.header.expected_frames or None

    def __aiter__(self) -> AsyncAudioStream:
        return self

    async def __anext__(self) -> AudioChunk:
        await self.start()
        assert self._parts is not None
        part = await anext(self._parts)
        assert isinstance(part, AudioChunk)
        return part

    async def aclose(self) -> None:
        """Stops listening. The generation goes on."""
        if self._parts is not None:
            await self._parts.aclose()

    async def __aenter__(self) -> AsyncAudioStream:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


Source = AsyncGeneration | str | Callable[[], Awaitable[AsyncGeneration]]
"""What to listen to."""
