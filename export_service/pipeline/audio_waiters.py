"""The calls that wait for the audio of a generation to become available."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class AudioWaiters:
    """Used on the event loop only."""

    def __init__(self) -> None:
        self._events: dict[str, set[asyncio.Event]] = {}

    @contextmanager
    def wait_for(self, generation_id: str) -> Iterator[asyncio.Event]:
        """Yields an event that is set whenever there may be audio of the generation."""
        available = asyncio.Event()
        self._events.setdefault(generation_id, set()).add(available)
        try:
            yield available
        finally:
            self._events[generation_id].discard(available)
            if not self._events[generation_id]:
                del self._events[generation_id]

    def notify(self, generation_id: str) -> None:
        """Has the calls that wait for this generation look for its audio."""
        for available in self._events.get(generation_id, ()):
            available.set()

    def notify_all(self) -> None:
        """Does the same for all generations."""
        for generation_id in self._events:
            self.notify(generation_id)
