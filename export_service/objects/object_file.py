"""An object that is open for reading, by ranges."""

from __future__ import annotations

from export_service.library.store import file_replaced
from export_service.objects.bucket import Bucket, StoredObject
from export_service.objects.object_errors import ObjectMissing, ObjectReplaced

READ_AHEAD_BYTES = 2 << 20
"""Asked for at once, and kept in memory by each reader."""
FIRST_READ_BYTES = 1 << 16
"""Doubles as long as the reader goes on, so that a part costs little."""


class ObjectFile:
    """One version of an object. Reading raises NotFound once another has replaced it."""

    def __init__(self, bucket: Bucket, stored: StoredObject, name: str, file_id: str) -> None:
        self._bucket, self._stored, self._file_id = bucket, stored, file_id
        self.name, self.size_bytes = name, stored.size_bytes
        self._start, self._data = 0, b""
        self._next_bytes = FIRST_READ_BYTES

    def read_at(self, offset: int, size: int) -> bytes:
        """Returns at most `size` bytes; none past the end."""
        end = min(offset + size, self.size_bytes)
        if offset < self._start or end > self._start + len(self._data):
            try:
                self._data = self._bucket.read_range(self._stored, offset, max(size, self._next_bytes))
            except (ObjectMissing, ObjectReplaced):
                raise file_replaced(self._file_id) from None
            self._start = offset
            self._next_bytes = min(2 * self._next_bytes, READ_AHEAD_BYTES)
        return self._data[offset - self._start : end - self._start]

    def close(self) -> None:
        """Frees the memory."""
        self._data = b""
