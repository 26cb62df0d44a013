"""A file object for native libraries, which lose the exceptions of its methods."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import BinaryIO, TypeVar

T = TypeVar("T")


class NativeFileObject:
    """Wraps a file for libsndfile or c2pa and keeps the first OSError, which the caller raises afterwards.

    Exceptions do not pass through the callbacks of either library; libsndfile reports a full disk only as "System
    error".
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.os_error: OSError | None = None

    def write(self, data: bytes) -> int:
        return self._call(self._file.write, data, default=0)

    def read(self, size: int) -> bytes:  # c2pa checks that it exists, but does not call it.
        return self._call(self._file.read, size, default=b"")

    def readinto(self, buffer: memoryview) -> int:
        return self._call(self._file.readinto, buffer, default=0)  # type: ignore[attr-defined]

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._call(self._file.seek, offset, whence, default=0)

    def tell(self) -> int:
        return self._call(self._file.tell, default=0)

    def flush(self) -> None:
        self._call(self._file.flush, default=None)

    def _call(self, operation: Callable[..., T], *arguments: object, default: T) -> T:
        """Returns `default` if the operation fails, or if an earlier one failed."""
        try:
            return default if self.os_error else operation(*arguments)
        except OSError as error:
            self.os_error = error
            return default
