"""Limits how many callers are served with notes or stems at the same time, because each takes a core."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from dgx_music.errors import ResourceExhausted

MAX_PART_REQUESTS: Final = 4
_RETRY_SECONDS: Final = 5.0


class PartSlots:
    """Counts the requests that are being served. Used on the event loop."""

    def __init__(self, limit: int = MAX_PART_REQUESTS) -> None:
        self._limit = limit
        self._taken = 0

    @contextmanager
    def take(self) -> Iterator[None]:
        """Holds a place while the context lasts. Raises ResourceExhausted if there is none."""
        if self._taken >= self._limit:
            raise ResourceExhausted(
                f"{self._limit} requests for stems or MIDI are being served already; retry in {_RETRY_SECONDS:g} s",
                reason="TOO_MANY_PART_REQUESTS",
                retry_after_seconds=_RETRY_SECONDS,
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
