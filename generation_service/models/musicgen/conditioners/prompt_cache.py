"""Keeps what was encoded last, by the prompt's text."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

ValueT = TypeVar("ValueT")


class PromptCache(Generic[ValueT]):
    """The most recently used values, within a number and a size. Any thread can call it."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, tuple[ValueT, int]] = OrderedDict()
        self._lock = threading.Lock()
        self.size_bytes = 0
        """Bytes of all values."""

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, prompt: str) -> ValueT | None:
        """Returns the value of a prompt, or None if there is none (any more)."""
        with self._lock:
            entry = self._entries.get(prompt)
            if entry is None:
                return None
            self._entries.move_to_end(prompt)
            return entry[0]

    def put(self, prompt: str, value: ValueT, size_bytes: int) -> None:
        """Adds a value and drops those that were not used for the longest time. The newest is always kept."""
        with self._lock:
            _, replaced_bytes = self._entries.pop(prompt, (None, 0))
            self._entries[prompt] = value, size_bytes
            self.size_bytes += size_bytes - replaced_bytes
            while len(self._entries) > 1 and (
                len(self._entries) > self._max_entries or self.size_bytes > self._max_bytes
            ):
                _, (_, dropped_bytes) = self._entries.popitem(last=False)
                self.size_bytes -= dropped_bytes
