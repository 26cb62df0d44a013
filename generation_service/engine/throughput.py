"""Measures how fast the engine generates."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_SECONDS = 10.0
_BUCKET_SECONDS = 0.1


@dataclass(slots=True)
class _Bucket:
    number: int
    steps: int = 0
    audio_seconds: float = 0.0


class Throughput:
    """Steps and audio of the last ten seconds.

    They are counted in buckets of 0.1 s, so that memory use does not depend on the step rate.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: deque[_Bucket] = deque()

    def record_step(self, audio_seconds: float) -> None:
        """Counts one batch step; `audio_seconds` is the sum over all rows of the batch."""
        number = self._drop_expired()
        if not self._buckets or self._buckets[-1].number != number:
            self._buckets.append(_Bucket(number))
        self._buckets[-1].steps += 1
        self._buckets[-1].audio_seconds += audio_seconds

    def rates(self) -> tuple[float, float]:
        """Returns the steps per second and the seconds of audio per second."""
        self._drop_expired()
        steps = sum(bucket.steps for bucket in self._buckets)
        audio_seconds = sum(bucket.audio_seconds for bucket in self._buckets)
        return steps / WINDOW_SECONDS, audio_seconds / WINDOW_SECONDS

    def _drop_expired(self) -> int:
        """Drops the buckets that have left the window. Returns the number of the current bucket."""
        now = int(self._clock() / _BUCKET_SECONDS)
        while self._buckets and self._buckets[0].number <= now - round(WINDOW_SECONDS / _BUCKET_SECONDS):
            self._buckets.popleft()
        return now
