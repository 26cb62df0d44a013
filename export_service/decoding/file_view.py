"""A part of a file, with some of its bytes replaced."""

from __future__ import annotations

import io
import os
from typing import BinaryIO


class FileView(io.RawIOBase):
    """Reads a part of `file` as if its bytes at the keys of `patches` were the values there. The file itself is not
    changed. Positions count from the start of the part.
    """

    def __init__(self, file: BinaryIO, start: int = 0, end: int | None = None) -> None:
        self._file, self._start = file, start
        self.size = (file.seek(0, os.SEEK_END) if end is None else end) - start
        self._claimed_size = self.size
        self._patches: dict[int, bytes] = {}
        self._position = 0

    def part(
        self,
        start: int = 0,
        end: int | None = None,
        patches: dict[int, bytes] | None = None,
        claimed_size: int | None = None,
    ) -> FileView:
        """Returns the part from `start` to `end`, with more patches.

        With `claimed_size`, it can be sought up to this size, and zeros are read beyond its end. Reading from its start
        on still ends at its end.
        """
        view = FileView(self._file, self._start + start, self._start + (self.size if end is None else end))
        view._patches = {at - start: replacement for at, replacement in self._patches.items()} | (patches or {})
        view._claimed_size = claimed_size or view.size
        return view

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to a position, or to the end if that is beyond it, which is where damaged headers point."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._claimed_size}[whence]
        self._position = min(max(0, base + offset), self._claimed_size)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        position, buffer = self._position, memoryview(buffer)
        if position > self.size:
            count = min(len(buffer), self._claimed_size - position)
            buffer[:count] = bytes(count)
        else:
            self._file.seek(self._start + position)
            count = self._file.readinto(buffer[: self.size - position])  # type: ignore[attr-defined]
        for at, replacement in self._patches.items():
            for index, byte in enumerate(replacement, at - position):
                if 0 <= index < count:
                    buffer[index] = byte
        self._position += count
        return count

    def read_at(self, offset: int, count: int) -> bytes:
        """Returns up to `count` bytes from `offset` on."""
        self.seek(offset)
        return self.read(count) or b""
