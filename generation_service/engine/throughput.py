"""Measures how fast the engine generates."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from generation_service.engine.engine_status import batch_distribution, step_distribution

WINDOW_SECONDS = 10.0
_BUCKET_SECONDS = 0.1
_MIN_EVIDENCE_SECONDS = 5.0
"""Seconds of audio from which a model's speed is known."""
_NEWEST_WEIGHT = 0.01


@dataclass(slots=True)
class _Bucket:
    number: int
    steps: int = 0
    audio_seconds: float = 0.0
    busy_seconds: float = 0.0


@dataclass(slots=True)
class _Speed:
    """Of the sequences of one model: averages over about the latest hundred blocks."""

    audio_seconds: float = 0.0
    step_seconds: float = 0.0
    total_audio_seconds: float = 0.0

    def add(self, audio_seconds: float, step_seconds: float) -> None:
        self.audio_seconds += (audio_seconds - self.audio_seconds) * _NEWEST_WEIGHT
        self.step_seconds += (step_seconds - self.step_seconds) * _NEWEST_WEIGHT
        self.total_audio_seconds += audio_seconds


class Throughput:
    """Steps and audio of the last ten seconds and in all, and the speed of a single sequence.

    Steps are counted in buckets of 0.1 s, so that memory use does not depend on the step rate.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: deque[_Bucket] = deque()
        self._speeds: dict[str, _Speed] = {}
        self.total_audio_seconds = 0.0
        self.step_seconds, self.batch_sizes = step_distribution(), batch_distribution()

    def record_step(self, audio_seconds: float, busy_seconds: float = 0.0, batch_size: int = 1) -> None:
        """Counts one batch step; `audio_seconds` is the sum over all rows of the batch."""
        self.total_audio_seconds += audio_seconds
        self.step_seconds.observe(busy_seconds)
        self.batch_sizes.observe(batch_size)
        number = self._drop_expired()
        if not self._buckets or self._buckets[-1].number != number:
            self._buckets.append(_Bucket(number))
        bucket = self._buckets[-1]
        bucket.steps += 1
        bucket.audio_seconds += audio_seconds
        bucket.busy_seconds += busy_seconds

    def record_block(self, model: str, audio_seconds: float, step_seconds: float) -> None:
        """Counts a block of one sequence, and how long the sequence was stepped for it."""
        self._speeds.setdefault(model, _Speed()).add(audio_seconds, step_seconds)

    def rates(self) -> tuple[float, float]:
        """Returns the steps per second and the seconds of audio per second."""
        self._drop_expired()
        steps = sum(bucket.steps for bucket in self._buckets)
        audio_seconds = sum(bucket.audio_seconds for bucket in self._buckets)
        return steps / WINDOW_SECONDS, audio_seconds / WINDOW_SECONDS

    @property
    def busy_rate(self) -> float:
        """Seconds of audio per second of work on all sequences, idle time excluded; 0 if nothing ran recently."""
        self._drop_expired()
        busy_seconds = sum(bucket.busy_seconds for bucket in self._buckets)
        return sum(bucket.audio_seconds for bucket in self._buckets) / busy_seconds if busy_seconds else 0.0

    def sequence_speed(self, model: str) -> float | None:
        """Returns the seconds of audio that a sequence of the model gains per second, or None if that is not known."""
        speed = self._speeds.get(model)
        if speed is None or speed.total_audio_seconds < _MIN_EVIDENCE_SECONDS or speed.step_seconds <= 0.0:
            return None
        return speed.audio_seconds / speed.step_seconds

    def _drop_expired(self) -> int:
        """Drops the buckets that have left the window. Returns the number of the current bucket."""
        now = int(self._clock() / _BUCKET_SECONDS)
        while self._buckets and self._buckets[0].number <= now - round(WINDOW_SECONDS / _BUCKET_SECONDS):
            self._buckets.popleft()
        return now
