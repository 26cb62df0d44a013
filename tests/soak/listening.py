"""Listeners, which go on where a connection broke, and downloads."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from dgx_music.audio.v1 import audio_pb2
from dgx_music.errors import DataLoss
from dgx_music.export.v1.export_pb2 import DownloadRequest, StreamAudioRequest
from dgx_music.pcm import PcmReader
from tests.soak.calls import Caller, Pause, is_transient
from tests.soak.violation import Violation

STREAM_SECONDS = 60.0


class Listener:
    """Listens to one generation from one frame on, and keeps what it hears."""

    def __init__(self, caller: Caller, generation_id: str, start_frame: int) -> None:
        self._caller, self._id, self._start_frame = caller, generation_id, start_frame
        self.level = audio_pb2.AUDIO_LEVEL_UNSPECIFIED
        self.pcm = bytearray()
        self.frame_bytes = 0
        self.has_ended = False
        """Whether it has heard everything to the end."""

    @property
    def start_byte(self) -> int:
        return self._start_frame * self.frame_bytes

    async def listen(self) -> None:
        """Returns at the end of the audio, or when there is none any more. Raises Violation."""
        subject = f"a listener to {self._id}"
        pause = Pause(subject)
        while not self.has_ended:
            try:
                await self._listen_once()
            except DataLoss as error:
                raise Violation("damaged stream", subject, error.message) from error
            except grpc.aio.AioRpcError as error:
                if not is_transient(error, subject):
                    return  # Cancelled, failed, deleted, or its live audio is no longer kept.
                self._caller.repeats[f"StreamAudio {error.code().name}"] += 1
                await pause.after(error)

    async def _listen_once(self) -> None:
        heard = len(self.pcm) // self.frame_bytes if self.frame_bytes else 0
        request = StreamAudioRequest(
            generation_id=self._id, start_frame=self._start_frame + heard, level=self.level, wait_seconds=STREAM_SECONDS
        )
        reader: PcmReader | None = None
        async for part in self._caller.music.StreamAudio(request, timeout=STREAM_SECONDS):
            match part.WhichOneof("part"):
                case "header":
                    reader = PcmReader(part.header)
                    self.level = part.header.level
                    self.frame_bytes = 4 * part.header.channels
                case "chunk" if reader is not None:
                    pcm = reader.accept(part.chunk)
                    if part.chunk.start_frame != self._start_frame + len(self.pcm) // self.frame_bytes:
                        raise DataLoss(f"frame {part.chunk.start_frame} is not the next one", reason="STREAM_BROKEN")
                    self.pcm += pcm
                case "end" if reader is not None:
                    reader.finish(part.end)
                    self.has_ended = True
                case _:
                    raise DataLoss("there is no header", reason="STREAM_BROKEN")


async def download(caller: Caller, generation_id: str, render_id: str = "") -> bytes | None:
    """Returns the bytes of a file, or None if it is gone. Raises Violation."""
    subject = f"a download of {generation_id}"
    request = DownloadRequest(generation_id=generation_id, render_id=render_id)
    pause = Pause(subject)
    while True:
        try:
            pieces, size = [], 0
            responses: AsyncIterator[Any] = caller.music.Download(request, timeout=STREAM_SECONDS)
            async for response in responses:
                size = size or response.file_size_bytes
                pieces.append(response.data)
        except grpc.aio.AioRpcError as error:
            if not is_transient(error, subject):
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise Violation("rejected", subject, f"{error.code().name}: {error.details()}") from error
                return None
            caller.repeats[f"Download {error.code().name}"] += 1
            await pause.after(error)
        else:
            data = b"".join(pieces)
            if len(data) != size:
                raise Violation("damaged stream", subject, f"it has {len(data)} bytes, not {size}")
            return data


def sha256(data: bytes | bytearray) -> str:
    return hashlib.sha256(data).hexdigest()
