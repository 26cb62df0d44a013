"""A part of a file, with some of its bytes replaced."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import BinaryIO


class FileView(io.RawIOBase):
    """Reads a part of `file` as if its bytes at the keys of `patches` were the values there. The file itself is not
    changed. Positions count from the start of the part.
    """

    def __init__(self, file: BinaryIO, start: int = 0, end: int | None = None) -> None:
        self._file, self._start = file, start
        self.size = (file.seek(0, os.SEEK_END) if end is None else end) - start
        self._patches: Mapping[int, bytes] = {}
        file.seek(start)

    def part(self, start: int = 0, end: int | None = None, patches: Mapping[int, bytes] | None = None) -> FileView:
        """Returns the part from `start` to `end`, without the patches of this one but with others."""
        view = FileView(self._file, self._start + start, self._start + (self.size if end is None else end))
        view._patches = patches or {}
        return view

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell() - self._start

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to a position, or to the end if that is beyond it, which is where damaged headers point."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self.size}[whence]
        return self._file.seek(self._start + min(max(0, base + offset), self.size)) - self._start

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        position = self.tell()
        within = memoryview(buffer)[: max(0, self.size - position)]
        count: int = self._file.readinto(within)  # type: ignore[attr-defined]
        for at, replacement in self._patches.items():
            for index, byte in enumerate(replacement, at - position):
                if 0 <= index < count:
                    within[index] = byte
        return count

    def read_at(self, offset: int, count: int) -> bytes:
        """Returns up to `count` bytes from `offset` on."""
        self.seek(offset)
        return self.read(count) or b""
