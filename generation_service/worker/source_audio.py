"""Reads finished audio from export: that of an earlier generation, or of an imported clip."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

import grpc
import grpc.aio
import numpy as np

from dgx_music.audio.v1 import audio_pb2
from dgx_music.errors import Aborted, DataLoss, InvalidArgument
from dgx_music.export.v1 import export_pb2, export_pb2_grpc
from dgx_music.pcm import PcmReader
from dgx_music.response_stream import read_stream
from generation_service.models.base import FloatArray
from service_runtime.rpc.deadlines import time_left

FETCH_TIMEOUT_SECONDS = 60.0
"""The timeout of a stream. Export resamples ten minutes of audio in about one minute."""


@dataclass(frozen=True, slots=True)
class SourceAudio:
    """The finished audio of a generation or a clip. `field` is the field of the request that names it, for errors."""

    export: export_pb2_grpc.ExportServiceAsyncStub
    source_id: str
    field: str
    timeout_seconds: float = FETCH_TIMEOUT_SECONDS
    attempt: int | None = None
    """The attempt at the source whose file is read; None for whichever is there. Reading another one raises Aborted, so
    that no result has parts of two."""

    async def read_header(self) -> audio_pb2.AudioHeader:
        """Returns sample rate, channels and, as `expected_frames`, length of the file. Raises errors as `blocks`."""
        call = self._call(export_pb2.StreamAudioRequest())
        try:
            async for part in read_stream(call):
                if part.WhichOneof("part") == "header":
                    self._require_attempt(part.header)
                    return part.header
        except grpc.aio.AioRpcError as error:
            raise self._translate(error) from error
        finally:
            call.cancel()
        raise self._broke_off()

    async def blocks(
        self,
        start_frame: int = 0,
        frames: int | None = None,
        *,
        sample_rate_hz: int = 0,
        channels: int = 0,
        last_seconds: float = 0.0,
    ) -> AsyncIterator[FloatArray]:
        """Yields `frames` frames from `start_frame` on, or all, as float32 [n, channels]; fewer if the audio ends.

        Sample rate and channels are those of the file unless given; both numbers of frames count at that rate.
        `last_seconds` reads only the end, and excludes them.

        Raises InvalidArgument if export has no finished audio of the source; Aborted if that is of another attempt;
        DataLoss if the audio does not arrive completely; AioRpcError with any other error of export.
        """
        if frames == 0:
            return
        request = export_pb2.StreamAudioRequest(
            start_frame=start_frame, sample_rate_hz=sample_rate_hz, channels=channels, last_seconds=last_seconds
        )
        remaining = frames
        reader: PcmReader | None = None
        call = self._call(request)
        try:
            async for part in read_stream(call):
                match part.WhichOneof("part"):
                    case "header":
                        self._require_attempt(part.header)
                        reader = PcmReader(part.header)
                    case "chunk" if reader is not None:
                        pcm = reader.accept(part.chunk)
                        block = np.frombuffer(pcm, "<f4").astype(np.float32, copy=False)
                        block = block.reshape(-1, reader.header.channels)[:remaining]
                        yield block
                        if remaining is not None and (remaining := remaining - len(block)) == 0:
                            return
                    case "end" if reader is not None:
                        reader.finish(part.end)
                        return
        except grpc.aio.AioRpcError as error:
            raise self._translate(error) from error
        finally:
            call.cancel()
        raise self._broke_off()

    async def read(
        self,
        start_frame: int = 0,
        frames: int | None = None,
        *,
        sample_rate_hz: int,
        channels: int,
        last_seconds: float = 0.0,
    ) -> FloatArray:
        """Returns what `blocks` yields as one array, [n, channels]."""
        stream = self.blocks(
            start_frame, frames, sample_rate_hz=sample_rate_hz, channels=channels, last_seconds=last_seconds
        )
        async with aclosing(stream) as blocks:  # type: ignore[type-var]
            parts = [block async for block in blocks]
        return np.concatenate([np.zeros((0, channels), np.float32), *parts])

    def _call(
        self, request: export_pb2.StreamAudioRequest
    ) -> grpc.aio.UnaryStreamCall[export_pb2.StreamAudioRequest, export_pb2.StreamAudioResponse]:
        request.generation_id, request.level = self.source_id, audio_pb2.AUDIO_LEVEL_FINAL
        return self.export.StreamAudio(request, timeout=time_left(self.timeout_seconds))

    def _require_attempt(self, header: audio_pb2.AudioHeader) -> None:
        if self.attempt is not None and header.attempt != self.attempt:
            raise Aborted(
                f"{self.field}.source_id: the file of {self.source_id} was replaced while it was read; retry",
                reason="SOURCE_REPLACED",
            )

    def _translate(self, error: grpc.aio.AioRpcError) -> Exception:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return InvalidArgument(
                f"{self.field}.source_id",
                f"there is no finished generation or clip with id {self.source_id}",
                reason="UNKNOWN_SOURCE",
            )
        if error.code() is grpc.StatusCode.OUT_OF_RANGE:
            return InvalidArgument(f"{self.field}.start_seconds", "is past the end of the source")
        return error

    def _broke_off(self) -> DataLoss:
        return DataLoss(f"the audio of {self.source_id} ended before it was complete", reason="SOURCE_BROKE_OFF")
