"""The bytes of a finished file."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from dgx_music.errors import NotFound
from export_service.library.filesystem import disk_errors
from export_service.streaming.audio_stream import require_within
from export_service.threads import on_thread

MESSAGE_BYTES = 65_536


class Download:
    """A range of an open file; it stays readable even if the file is deleted meanwhile."""

    def __init__(self, file: BinaryIO, name: str, start_byte: int, byte_count: int) -> None:
        self._file = file
        self.name = name
        self.file_size_bytes = os.fstat(file.fileno()).st_size
        require_within(start_byte, self.file_size_bytes, "start_byte", "bytes")
        self._position = start_byte
        self._end = min(start_byte + byte_count, self.file_size_bytes) if byte_count else self.file_size_bytes

    async def messages(self) -> AsyncGenerator[bytes, None]:
        """The range in pieces of at most 64 KiB; one empty piece if it is empty."""
        while True:
            with disk_errors("reading the file"):
                size = min(self._end - self._position, MESSAGE_BYTES)
                data = await on_thread(os.pread, self._file.fileno(), size, self._position)
            yield data
            self._position += len(data)
            if self._position >= self._end:
                return


@asynccontextmanager
async def download(path: Path, start_byte: int, byte_count: int) -> AsyncIterator[Download]:
    """Opens the file; 0 for all bytes that follow. Raises NotFound where it is gone, OutOfRange past its end."""
    with disk_errors("opening the file"):
        try:
            file = await on_thread(path.open, "rb", 0)
        except FileNotFoundError:
            raise NotFound("file", path.stem, "it was deleted") from None
    try:
        yield Download(file, path.name, start_byte, byte_count)
    finally:
        file.close()
