"""Exponential backoff between retries of a call."""

from __future__ import annotations

import random


class Backoff:
    """The delays before successive retries: each is twice the last, up to a maximum.

    `jitter` is the largest fraction that is randomly subtracted from a delay, so that clients that lost the same server
    do not all return to it at the same moment.
    """

    def __init__(self, initial_seconds: float, max_seconds: float, *, jitter: float = 0.0) -> None:
        self._initial_seconds = initial_seconds
        self._max_seconds = max_seconds
        self._jitter = jitter
        self._next_seconds = initial_seconds

    @property
    def next_seconds(self) -> float:
        """The next delay before jitter: the longest that `next_delay` can return."""
        return self._next_seconds

    def next_delay(self) -> float:
        """Returns how many seconds to wait before the next retry."""
        delay = self._next_seconds * random.uniform(1.0 - self._jitter, 1.0)
        self._next_seconds = min(2 * self._next_seconds, self._max_seconds)
        return delay

    def reset(self) -> None:
        """Starts over with the initial delay, after a success."""
        self._next_seconds = self._initial_seconds
