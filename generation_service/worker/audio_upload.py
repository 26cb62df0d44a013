"""Sends a job's audio to export while it is generated, all of it or what export does not have yet."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import grpc.aio

from dgx_music.audio.v1 import audio_pb2
from dgx_music.errors import Unavailable
from dgx_music.pcm import PcmWriter
from dgx_music.storage.v1 import storage_pb2
from generation_service.engine.suspension.sealed_checkpoint import GenerationSuspended
from generation_service.worker import converters
from generation_service.worker.converters import Exported
from generation_service.worker.export_header import build_export_header
from generation_service.worker.export_stream import ExportStream
from generation_service.worker.job_audio import JobAudio
from service_runtime.failpoints import failpoint
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)


class AudioUpload:
    """One Export call."""

    def __init__(
        self,
        generation: storage_pb2.Generation,
        audio: JobAudio,
        stream: ExportStream,
        kept_frames: int,
        on_sent: Callable[[], None],
    ) -> None:
        """`kept_frames` is how many frames of a suspended attempt the export server has: they are not sent again, if
        the engine goes on from that attempt. `on_sent` is called before the end is sent."""
        self._audio, self._stream, self._on_sent = audio, stream, on_sent
        self._kept_frames = kept_frames if audio.handle.is_resumed else 0
        self._header = build_export_header(generation, audio)
        self._header.resume_frames = self._kept_frames
        self._writer = PcmWriter(audio.channels, self._kept_frames)

    async def run(self) -> Exported:
        """Returns the file. Raises AioRpcError with export's status, what the audio raises, and after
        `GenerationHandle.suspend` GenerationSuspended, once export has the samples so far."""
        try:
            await self._stream.send_header(self._header)
            await self._send_blocks()
            failpoint("generation.before_end")
            self._on_sent()
            return Exported(self._header, await self._stream.finish(self._writer.end()))
        except GenerationSuspended:
            if self._kept_frames + self._writer.frames:
                await self._suspend(self._writer.end())
            raise
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            # It lost them a moment ago, or found them damaged. The next attempt sends all of its audio.
            raise Unavailable(
                "the export service no longer has the first samples", reason="SAMPLES_LOST", retry_after_seconds=0.0
            ) from error

    async def _send_blocks(self) -> None:
        position = 0
        async for block in self._audio.blocks:
            new = block[max(0, self._kept_frames - position) :]
            position += len(block)
            for chunk in self._writer.chunks(converters.encode_pcm(new)):
                failpoint("generation.before_chunk")
                await self._stream.send_chunk(chunk)

    async def _suspend(self, end: audio_pb2.AudioEnd) -> None:
        failpoint("generation.before_suspend")
        try:
            await self._stream.suspend(end)
        except grpc.aio.AioRpcError as error:  # The next attempt sends them again.
            log.warning("samples_not_kept", code=error.code().name, error=error.details())
