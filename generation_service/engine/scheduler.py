"""Decides which requests wait, which are in the batch, and which are stepped next. Pure bookkeeping: no threads, no
clock, no model calls."""

from __future__ import annotations

from collections import deque

from generation_service.engine.sequence import Sequence
from generation_service.models.base import ModelInfo


class Scheduler:
    """Continuous batching: requests join and leave a running batch between steps.

    Waiting requests are admitted first come, first served. Each round steps every sequence whose reader has room once,
    one batch per model, so that neither a slow reader nor a busy model holds up the others.
    """

    def __init__(self, max_batch_size: int, max_waiting: int) -> None:
        self.max_batch_size = max_batch_size
        self.max_waiting = max_waiting
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._is_short_of_memory = False
        """Whether the next waiting request needs memory that running ones hold."""

    @property
    def running(self) -> tuple[Sequence, ...]:
        """The sequences in the batch, oldest first."""
        return tuple(self._running)

    @property
    def waiting(self) -> tuple[Sequence, ...]:
        """The sequences waiting for admission, next first."""
        return tuple(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether both the batch and the queue are full."""
        return len(self._running) + len(self._waiting) >= self.max_batch_size + self.max_waiting

    @property
    def has_work(self) -> bool:
        """Whether a round would admit or step anything."""
        return self._can_admit or any(sequence.is_ready for sequence in self._running)

    @property
    def _can_admit(self) -> bool:
        return bool(self._waiting) and len(self._running) < self.max_batch_size and not self._is_short_of_memory

    def add(self, sequence: Sequence) -> None:
        """Appends a request to the queue. The caller has checked `is_full`."""
        self._waiting.append(sequence)

    def admit(self) -> Sequence | None:
        """Moves the next waiting request into the batch. Returns None if none is waiting or none can be admitted.

        Admits one request at a time, so that running sequences wait for at most one prefill between two steps.
        """
        if not self._can_admit:
            return None
        sequence = self._waiting.popleft()
        self._running.append(sequence)
        return sequence

    def requeue(self, sequence: Sequence) -> None:
        """Returns an admitted request to the head of the queue for lack of memory; a cancelled one is dropped.

        Nothing is admitted until a sequence leaves the batch, so no later request overtakes this one.
        """
        self._running.remove(sequence)
        if not sequence.is_cancelled:
            self._waiting.appendleft(sequence)
            self._is_short_of_memory = True

    def next_batches(self) -> list[list[Sequence]]:
        """Returns the batches of the next round; all sequences of a batch use the same model."""
        shared: dict[ModelInfo, list[Sequence]] = {}
        solo: list[list[Sequence]] = []
        for sequence in self._running:
            if not sequence.is_ready:
                continue
            if sequence.is_solo:
                solo.append([sequence])
            else:
                shared.setdefault(sequence.info, []).append(sequence)
        return [*shared.values(), *solo]

    def cancel(self, sequence: Sequence) -> None:
        """Removes a waiting request at once, and marks a running one for `remove_cancelled`."""
        if sequence in self._waiting:
            self._waiting.remove(sequence)
            self._is_short_of_memory = False
        sequence.is_cancelled = True

    def remove_cancelled(self) -> list[Sequence]:
        """Removes the cancelled sequences from the batch and returns them. The caller releases their states."""
        cancelled = [sequence for sequence in self._running if sequence.is_cancelled]
        if cancelled:
            self._running = [sequence for sequence in self._running if not sequence.is_cancelled]
            self._is_short_of_memory = False
        return cancelled

    def finish(self, sequence: Sequence) -> None:
        """Removes a completed or failed sequence from the batch."""
        self._running.remove(sequence)
        self._is_short_of_memory = False

    def clear(self) -> list[Sequence]:
        """Removes and returns all sequences, running and waiting."""
        removed = [*self._running, *self._waiting]
        self._running.clear()
        self._waiting.clear()
        return removed
