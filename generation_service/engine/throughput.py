"""How fast the engine is going."""

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
    """Steps and audio over the last ten seconds, counted in buckets of 0.1 s so that its size does not grow with the
    speed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: deque[_Bucket] = deque()

    def record(self, audio_seconds: float) -> None:
        """Counts one batch step that made so much audio over all its rows."""
        number = self._forget()
        if not self._buckets or self._buckets[-1].number != number:
            self._buckets.append(_Bucket(number))
        self._buckets[-1].steps += 1
        self._buckets[-1].audio_seconds += audio_seconds

    def rates(self) -> tuple[float, float]:
        """Steps a second and seconds of audio a second."""
        self._forget()
        steps = sum(bucket.steps for bucket in self._buckets)
        audio_seconds = sum(bucket.audio_seconds for bucket in self._buckets)
        return steps / WINDOW_SECONDS, audio_seconds / WINDOW_SECONDS

    def _forget(self) -> int:
        now = int(self._clock() / _BUCKET_SECONDS)
        while self._buckets and self._buckets[0].number <= now - round(WINDOW_SECONDS / _BUCKET_SECONDS):
            self._buckets.popleft()
        return now
