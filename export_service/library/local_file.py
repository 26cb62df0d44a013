"""A file of the library that is open for reading."""

from __future__ import annotations

import os
from pathlib import Path

from dgx_music.errors import NotFound
from export_service.library.regular_files import file_id


class LocalFile:
    """An open file, which stays readable even if it is deleted or replaced meanwhile."""

    def __init__(self, path: Path) -> None:
        """Raises NotFound if the file does not exist any more."""
        try:
            self._file = path.open("rb", 0)
        except FileNotFoundError:
            raise NotFound("file", file_id(path), "it was deleted") from None
        self.name = path.name
        self.size_bytes = os.fstat(self._file.fileno()).st_size

    def read_at(self, offset: int, size: int) -> bytes:
        """Returns at most `size` bytes; none past the end."""
        return os.pread(self._file.fileno(), size, offset)

    def close(self) -> None:
        self._file.close()
