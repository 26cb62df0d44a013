"""A file that libraries in other languages write through."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import BinaryIO, TypeVar

T = TypeVar("T")


class Sink:
    """Keeps the disk's own word for why it refused.

    libsndfile would say no more than "System error" for a full disk, and no exception passes through its callbacks;
    c2pa's are alike.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.refusal: OSError | None = None

    def write(self, data: bytes) -> int:
        return self._unless_refused(self._file.write, data, otherwise=0)

    def read(self, size: int) -> bytes:  # Which c2pa wants to see, but has no need of.
        return self._unless_refused(self._file.read, size, otherwise=b"")

    def readinto(self, buffer: memoryview) -> int:
        return self._unless_refused(self._file.readinto, buffer, otherwise=0)  # type: ignore[attr-defined]

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._unless_refused(self._file.seek, offset, whence, otherwise=0)

    def tell(self) -> int:
        return self._unless_refused(self._file.tell, otherwise=0)

    def flush(self) -> None:
        self._unless_refused(self._file.flush, otherwise=None)

    def _unless_refused(self, operation: Callable[..., T], *arguments: object, otherwise: T) -> T:
        try:
            return otherwise if self.refusal else operation(*arguments)
        except OSError as error:
            self.refusal = error
            return otherwise
