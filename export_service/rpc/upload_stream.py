"""The streams that audio comes in by: an export's header, chunks, end, in that order and adding up; a clip's bytes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from dgx_music.errors import DataLoss, InvalidArgument
from dgx_music.export.v1 import export_pb2
from dgx_music.pcm import PcmReader

MAX_DATA_BYTES = 65_536
"""In one message of an uploaded file."""


class Upload:
    """Takes the parts of an Export call."""

    def __init__(self, requests: AsyncIterator[export_pb2.ExportRequest]) -> None:
        self._requests = requests
        self._reader: PcmReader | None = None

    async def header(self) -> export_pb2.ExportHeader:
        """The first part. Raises InvalidArgument where it is none, or can't be."""
        async for request in self._requests:
            if request.WhichOneof("part") != "header":
                break
            self._reader = PcmReader(request.header.audio, "header.audio")
            return request.header
        raise InvalidArgument("header", "must be the first part of the stream")

    async def pcm(self) -> AsyncGenerator[bytes, None]:
        """The samples, until the end has proven them whole. Raises DataLoss where they do not add up."""
        reader = self._the_reader
        async for request in self._requests:
            part = request.WhichOneof("part")
            if part == "chunk":
                if reader.frames == 0 and request.chunk.start_frame != 0:
                    raise _loss(f"it begins with frame {request.chunk.start_frame}, not 0", "CHUNK_OUT_OF_ORDER")
                yield reader.accept(request.chunk)
            elif part == "end":
                reader.finish(request.end)
                async for _ in self._requests:
                    raise _loss("something came after its end", "PART_AFTER_END")
                return
            elif part == "header":
                raise InvalidArgument("header", "must come once only, as the first part of the stream")
            else:
                raise InvalidArgument("part", "must be a header, a chunk or an end")
        raise _loss(f"it closed without an end, after {reader.frames} frames", "END_MISSING")

    @property
    def sha256(self) -> str:
        """SHA-256 of all PCM bytes so far, lower-case hex."""
        return self._the_reader.sha256

    @property
    def _the_reader(self) -> PcmReader:
        assert self._reader is not None, "the header comes first"
        return self._reader


async def file_data(requests: AsyncIterator[export_pb2.ImportClipRequest]) -> AsyncGenerator[bytes, None]:
    """The bytes of an uploaded file. Raises InvalidArgument for a message that has none, or too many."""
    async for request in requests:
        if not 1 <= len(request.data) <= MAX_DATA_BYTES:
            raise InvalidArgument("data", f"must be 1 to {MAX_DATA_BYTES} bytes a message, not {len(request.data)}")
        yield request.data


def _loss(message: str, reason: str) -> DataLoss:
    return DataLoss(f"the audio stream does not add up: {message}", reason=reason)
