"""Who waits, who is in the batch, and who is stepped next. Pure bookkeeping: no thread, no clock, no model call."""

from __future__ import annotations

from collections import deque

from generation_service.engine.sequence import Sequence
from generation_service.models.base import ModelInfo


class Scheduler:
    """Continuous batching: requests join and leave a running batch between steps.

    Waiting requests are admitted in the order they came. A round steps every sequence that has room for output once,
    model by model, so neither a slow reader nor a busy model holds up the others.
    """

    def __init__(self, max_batch_size: int, max_waiting: int) -> None:
        self.max_batch_size = max_batch_size
        self.max_waiting = max_waiting
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._is_blocked = False
        """Whether the next one waits for somebody's memory."""

    @property
    def running(self) -> tuple[Sequence, ...]:
        """Sequences that hold a place in the batch, oldest first."""
        return tuple(self._running)

    @property
    def waiting(self) -> tuple[Sequence, ...]:
        """Sequences that wait for a place, next first."""
        return tuple(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether every place, in the batch and in the queue, is taken."""
        return len(self._running) + len(self._waiting) >= self.max_batch_size + self.max_waiting

    @property
    def has_work(self) -> bool:
        """Whether a round would do anything."""
        return self._can_admit or any(sequence.is_ready for sequence in self._running)

    @property
    def _can_admit(self) -> bool:
        return bool(self._waiting) and len(self._running) < self.max_batch_size and not self._is_blocked

    def add(self, sequence: Sequence) -> None:
        """Puts a request at the end of the queue; the caller has looked at `is_full`."""
        self._waiting.append(sequence)

    def admit(self) -> Sequence | None:
        """Moves the next request into the batch; None if nobody waits or there is no place.

        One at a time: between two steps of those already running lies one prefill at most.
        """
        if not self._can_admit:
            return None
        sequence = self._waiting.popleft()
        self._running.append(sequence)
        return sequence

    def put_back(self, sequence: Sequence) -> None:
        """Back to the head of the queue, until somebody leaves the batch: nobody overtakes it."""
        self._running.remove(sequence)
        if not sequence.cancelled:
            self._waiting.appendleft(sequence)
            self._is_blocked = True

    def batches(self) -> list[list[Sequence]]:
        """The next round: who is stepped together, all of one model."""
        shared: dict[ModelInfo, list[Sequence]] = {}
        alone: list[list[Sequence]] = []
        for sequence in self._running:
            if not sequence.is_ready:
                continue
            if sequence.alone:
                alone.append([sequence])
            else:
                shared.setdefault(sequence.info, []).append(sequence)
        return [*shared.values(), *alone]

    def cancel(self, sequence: Sequence) -> None:
        """Takes a waiting request out at once, and marks a running one for `reap`."""
        if sequence in self._waiting:
            self._waiting.remove(sequence)
            self._is_blocked = False
        sequence.cancelled = True

    def reap(self) -> list[Sequence]:
        """Takes the cancelled ones out of the batch; their states are the caller's to release."""
        cancelled = [sequence for sequence in self._running if sequence.cancelled]
        if cancelled:
            self._running = [sequence for sequence in self._running if not sequence.cancelled]
            self._is_blocked = False
        return cancelled

    def retire(self, sequence: Sequence) -> None:
        """Takes one that is done or failed out of the batch."""
        self._running.remove(sequence)
        self._is_blocked = False

    def clear(self) -> list[Sequence]:
        """Takes everyone out, running and waiting."""
        everyone = [*self._running, *self._waiting]
        self._running.clear()
        self._waiting.clear()
        return everyone
