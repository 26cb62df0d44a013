"""Downloads a finished file, or a range of its bytes."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from dgx_music.errors import NotFound, Unavailable
from dgx_music.limits import MAX_CHUNK_BYTES
from export_service.library.filesystem import translate_disk_errors
from export_service.streaming.audio_stream import validate_position
from export_service.threads import run_in_thread


class Download:
    """A range of an open file, which stays readable even if the file is deleted meanwhile."""

    def __init__(self, file: BinaryIO, name: str, start_byte: int, byte_count: int) -> None:
        self._file = file
        self.name = name
        self.file_size_bytes = os.fstat(file.fileno()).st_size
        validate_position(start_byte, self.file_size_bytes, "start_byte", "bytes")
        self._position = start_byte
        self._end = min(start_byte + byte_count, self.file_size_bytes) if byte_count else self.file_size_bytes

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yields the range in chunks of at most 64 KiB; a single empty chunk if it is empty.

        Raises Unavailable if the file is truncated meanwhile.
        """
        while True:
            with translate_disk_errors("reading the file"):
                size = min(self._end - self._position, MAX_CHUNK_BYTES)
                data = await run_in_thread(os.pread, self._file.fileno(), size, self._position)
            if size and not data:
                raise Unavailable(
                    f"{self.name} became shorter while it was read: it ends after {self._position} bytes",
                    reason="FILE_DAMAGED",
                )
            yield data
            self._position += len(data)
            if self._position >= self._end:
                return


@asynccontextmanager
async def open_download(path: Path, start_byte: int, byte_count: int) -> AsyncIterator[Download]:
    """Opens the file for a download. A `byte_count` of 0 stands for all bytes up to the end.

    Raises NotFound if the file no longer exists, OutOfRange if `start_byte` is past its end.
    """
    with translate_disk_errors("opening the file"):
        try:
            file = await run_in_thread(path.open, "rb", 0)
        except FileNotFoundError:
            raise NotFound("file", path.stem, "it was deleted") from None
    try:
        yield Download(file, path.name, start_byte, byte_count)
    finally:
        file.close()
