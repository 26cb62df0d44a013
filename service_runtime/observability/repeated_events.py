"""Keeps events that repeat by the thousand, such as refusals of an overloaded server, from filling the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

PERIOD_SECONDS = 10.0
"""One event of a kind is logged in this time."""


class RepeatedEvents:
    """Decides which events to log. Not thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged_at: dict[Hashable, float] = {}
        self._skipped: dict[Hashable, int] = {}

    def admit(self, kind: Hashable) -> int | None:
        """Returns None if this event should not be logged; otherwise how many of its kind were not logged since the
        last one that was. The number of different kinds must be limited."""
        now = self._clock()
        logged_at = self._logged_at.get(kind)
        if logged_at is not None and now - logged_at < PERIOD_SECONDS:
            self._skipped[kind] = self._skipped.get(kind, 0) + 1
            return None
        self._logged_at[kind] = now
        return self._skipped.pop(kind, 0)
