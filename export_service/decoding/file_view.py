"""A part of a file, with some of its bytes replaced."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import BinaryIO


class FileView(io.RawIOBase):
    """Reads `file` from the offset `start` on, as if its bytes at the keys of `patches` were the values there. The file
    itself is not changed. Positions count from `start`.
    """

    def __init__(self, file: BinaryIO, start: int = 0, patches: Mapping[int, bytes] | None = None) -> None:
        self._file, self._start, self._patches = file, start, patches or {}
        self.size = file.seek(0, os.SEEK_END) - start
        file.seek(start)

    def patched(self, patches: Mapping[int, bytes]) -> FileView:
        """Returns this view with other bytes replaced."""
        return FileView(self._file, self._start, patches)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell() - self._start

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self.size}[whence]
        return self._file.seek(self._start + max(0, base + offset)) - self._start

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        position = self.tell()
        count: int = self._file.readinto(buffer)  # type: ignore[attr-defined]
        for at, replacement in self._patches.items():
            for index, byte in enumerate(replacement, at - position):
                if 0 <= index < count:
                    buffer[index : index + 1] = bytes([byte])
        return count
