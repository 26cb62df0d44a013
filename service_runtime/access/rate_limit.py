"""Limits how often the bearer of a token may call: a token bucket for each."""

from __future__ import annotations

import time

from dgx_music.errors import ResourceExhausted

MAX_BUCKETS = 10_000


class RateLimiter:
    """A bearer may make a minute's calls at once; after that, calls become available at an even rate."""

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[float, float]] = {}
        """Token id → calls that are left, and when that was, by `time.monotonic()`."""

    def take(self, token_id: str, calls_per_minute: int) -> None:
        """Counts one call. Raises ResourceExhausted, with the time until the next is possible, if it is one too many.

        0 calls per minute stand for no limit.
        """
        if calls_per_minute <= 0:
            return
        now = time.monotonic()
        left, since = self._buckets.get(token_id, (float(calls_per_minute), now))
        per_second = calls_per_minute / 60
        left = min(float(calls_per_minute), left + (now - since) * per_second)
        if left < 1:
            wait_seconds = (1 - left) / per_second
            raise ResourceExhausted(
                f"this token allows {calls_per_minute} calls a minute; the next is possible in {wait_seconds:.1f} s",
                reason="RATE_LIMIT",
                metadata={"token_id": token_id, "calls_per_minute": str(calls_per_minute)},
                retry_after_seconds=wait_seconds,
            )
        if len(self._buckets) >= MAX_BUCKETS and token_id not in self._buckets:
            self._buckets.clear()
        self._buckets[token_id] = (left - 1, now)
