"""Streams of audio, which go on after a lost connection and with the next attempt, and samples as NumPy arrays."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import grpc.aio

from dgx_music.audio.v1.audio_pb2 import AudioHeader, AudioLevel
from dgx_music.client.connection import Connection
from dgx_music.errors import DataLoss, DeadlineExceeded, ServiceError
from dgx_music.export.v1.export_pb2 import StreamAudioRequest, StreamAudioResponse
from dgx_music.pcm import BYTES_PER_SAMPLE, PcmReader

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

FORMAT_CHANGED = "FORMAT_CHANGED"
"""Reason of the error for a sample rate or channels other than before the interruption."""


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """Consecutive samples of a stream."""

    start_frame: int
    """Index of the first frame in the generation, from 0. A frame is one sample of each channel."""
    pcm: bytes = field(repr=False)
    """Little-endian float32, interleaved. Full scale is ±1.0."""
    sample_rate: int
    """Hz."""
    channels: int
    """1 or 2."""

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.pcm) // (self.channels * BYTES_PER_SAMPLE)

    @property
    def samples(self) -> Samples:
        """float32 [frames, channels], read-only. Raises ImportError without NumPy."""
        return to_samples(self.pcm, self.channels)


def to_samples(pcm: bytes | bytearray, channels: int) -> Samples:
    """Returns interleaved PCM as float32 [frames, channels]. Raises ImportError without NumPy."""
    try:
        import numpy as np
    except ImportError as error:
        raise ImportError("samples are NumPy arrays; run `pip install numpy`, or use the bytes in `pcm`") from error
    return np.frombuffer(pcm, dtype="<f4").reshape(-1, channels)


@dataclass
class ListenRequest:
    """What to stream, and from where on."""

    id: str
    """UUID of a generation or a clip."""
    start_frame: int = 0
    level: AudioLevel = AudioLevel.AUDIO_LEVEL_UNSPECIFIED
    options: dict[str, Any] = field(default_factory=dict)
    """Further fields of StreamAudioRequest."""


async def listen(
    connection: Connection, request: ListenRequest, deadline: float | None = None
) -> AsyncGenerator[AudioHeader | AudioChunk, None]:
    """Yields the header, and then every sample once, in order and verified, however often the connection breaks.

    If an attempt at the generation is aborted, goes on with the next one from the same frame. Raises GenerationFailed
    or GenerationCancelled if there will be none, and DataLoss if what arrives is corrupt.
    """
    reconnection = connection.reconnection(deadline)
    request = replace(request)

    async def call(message: StreamAudioRequest) -> AsyncGenerator[StreamAudioResponse, None]:
        async with aclosing(connection.stream(connection.music.StreamAudio, message, deadline)) as responses:
            async for response in responses:
                reconnection.responded()
                yield response

    async def wait(error: Exception) -> None:
        if isinstance(error, DeadlineExceeded):
            raise DeadlineExceeded(
                f"the stream of {request.id} did not end within its timeout; the generation goes on",
                reason="NOT_FINISHED_YET",
                metadata={"id": request.id},
            ) from error
        assert isinstance(error, ServiceError)
        await reconnection.wait(error)

    async with aclosing(resume_audio(request, call, wait)) as parts:
        async for part in parts:
            yield part


async def resume_audio(
    request: ListenRequest,
    call: Callable[[StreamAudioRequest], AsyncGenerator[StreamAudioResponse, None]],
    wait: Callable[[Exception], Awaitable[None]],
) -> AsyncGenerator[AudioHeader | AudioChunk, None]:
    """Yields the header, and then every sample once, in order and verified, from as many calls as that takes.

    After an error, `wait` returns when the next call may be made, or raises. `request` always says what that asks for.
    """
    first: AudioHeader | None = None
    while True:
        message = StreamAudioRequest(
            generation_id=request.id, start_frame=request.start_frame, level=request.level, **request.options
        )
        try:
            async with aclosing(call(message)) as parts:
                reader: PcmReader | None = None
                async for part in parts:
                    match part.WhichOneof("part"):
                        case "header":
                            reader = PcmReader(part.header)
                            if first is None:
                                first, request.level = part.header, part.header.level
                                yield first
                            _require_same_format(first, part.header)
                        case "chunk" if reader is not None and first is not None:
                            pcm = reader.accept(part.chunk)
                            if part.chunk.start_frame != request.start_frame:
                                raise _broken(f"frame {part.chunk.start_frame} follows frame {request.start_frame}")
                            chunk = AudioChunk(request.start_frame, pcm, first.sample_rate_hz, first.channels)
                            request.start_frame += chunk.frames
                            yield chunk
                        case "end" if reader is not None:
                            reader.finish(part.end)
                            return
                        case _:
                            raise _broken("there is no header")
            raise _broken("it has no end")
        except (ServiceError, grpc.aio.AioRpcError) as error:
            await wait(error)


def _require_same_format(first: AudioHeader, header: AudioHeader) -> None:
    if (first.sample_rate_hz, first.channels) != (header.sample_rate_hz, header.channels):
        raise _broken("the sample rate or the channels have changed", FORMAT_CHANGED)


def _broken(problem: str, reason: str = "STREAM_BROKEN") -> DataLoss:
    return DataLoss(f"the audio stream is incomplete or corrupt: {problem}", reason=reason)
