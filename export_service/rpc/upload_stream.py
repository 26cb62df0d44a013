"""Reads the request streams that carry audio: an export (header, chunks, end) and the bytes of an uploaded clip."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from dgx_music.errors import DataLoss, InvalidArgument
from dgx_music.export.v1 import export_pb2
from dgx_music.limits import MAX_CHUNK_BYTES
from dgx_music.pcm import PcmReader


class UploadStream:
    """Reads and validates the parts of an Export call."""

    def __init__(self, requests: AsyncIterator[export_pb2.ExportRequest]) -> None:
        self._requests = requests
        self._reader: PcmReader | None = None
        self._first_frame = 0
        self.is_suspended = False
        """Whether the audio ended before all of it was generated; known after `read_pcm`."""

    async def read_header(self) -> export_pb2.ExportHeader:
        """Returns the first part. Raises InvalidArgument if it is not a header, or not a valid one."""
        async for request in self._requests:
            if request.WhichOneof("part") != "header":
                break
            self._reader = PcmReader(request.header.audio, "header.audio")
            self._first_frame = request.header.resume_frames
            if self._first_frame < 0:
                raise InvalidArgument("header.resume_frames", "must not be negative")
            return request.header
        raise InvalidArgument("header", "must be the first part of the stream")

    async def read_pcm(self) -> AsyncGenerator[bytes, None]:
        """Yields the samples up to the end, or to where the export is suspended. Raises DataLoss if they are incomplete
        or damaged.
        """
        reader = self._header_reader
        async for request in self._requests:
            part = request.WhichOneof("part")
            if part == "chunk":
                if reader.frames == 0 and request.chunk.start_frame != self._first_frame:
                    raise _data_loss(
                        f"it starts with frame {request.chunk.start_frame} instead of {self._first_frame}",
                        "CHUNK_OUT_OF_ORDER",
                    )
                yield reader.accept(request.chunk)
            elif part in ("end", "suspend"):
                self.is_suspended = part == "suspend"
                reader.finish(request.suspend if self.is_suspended else request.end)
                async for _ in self._requests:
                    raise _data_loss("it continues after its end part", "PART_AFTER_END")
                return
            elif part == "header":
                raise InvalidArgument("header", "must be sent only once, as the first part of the stream")
            else:
                raise InvalidArgument("part", "must be a header, a chunk, an end or a suspension")
        raise _data_loss(f"it was closed after {reader.frames} frames without an end part", "END_MISSING")

    @property
    def sha256(self) -> str:
        """SHA-256 of all PCM bytes so far, lower-case hex."""
        return self._header_reader.sha256

    @property
    def _header_reader(self) -> PcmReader:
        assert self._reader is not None, "read_header must be called first"
        return self._reader


async def read_file_data(requests: AsyncIterator[export_pb2.ImportClipRequest]) -> AsyncGenerator[bytes, None]:
    """Yields the bytes of an uploaded file. Raises InvalidArgument if a message is empty or too large."""
    async for request in requests:
        if not 1 <= len(request.data) <= MAX_CHUNK_BYTES:
            raise InvalidArgument(
                "data", f"must be 1 to {MAX_CHUNK_BYTES} bytes in each message, not {len(request.data)}"
            )
        yield request.data


def _data_loss(message: str, reason: str) -> DataLoss:
    return DataLoss(f"the audio stream is inconsistent: {message}", reason=reason)
