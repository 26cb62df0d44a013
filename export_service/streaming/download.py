"""Downloads a finished file, or a range of its bytes."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from dgx_music.errors import Unavailable
from dgx_music.limits import MAX_CHUNK_BYTES
from export_service.library.audio_library import RangeFile
from export_service.library.filesystem import translate_disk_errors
from export_service.streaming.audio_stream import validate_position
from export_service.threads import run_in_thread


class Download:
    """A range of an open file, which stays as it is even if the file is deleted meanwhile."""

    def __init__(self, file: RangeFile, start_byte: int, byte_count: int) -> None:
        """A `byte_count` of 0 stands for all bytes up to the end. Raises OutOfRange if `start_byte` is past the end."""
        self._file = file
        validate_position(start_byte, file.size_bytes, "start_byte", "bytes")
        self._position = start_byte
        self._end = min(start_byte + byte_count, file.size_bytes) if byte_count else file.size_bytes

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yields the range in chunks of at most 64 KiB; a single empty chunk if it is empty.

        Raises Unavailable if the file is truncated meanwhile, NotFound if it was replaced and the old one is gone.
        """
        while True:
            with translate_disk_errors("reading the file"):
                size = min(self._end - self._position, MAX_CHUNK_BYTES)
                data = await run_in_thread(self._file.read_at, self._position, size)
            if size and not data:
                raise Unavailable(
                    f"{self._file.name} became shorter while it was read: it ends after {self._position} bytes",
                    reason="FILE_DAMAGED",
                )
            yield data
            self._position += len(data)
            if self._position >= self._end:
                return
