"""Decides which requests wait, which are in the batch, and which are stepped next. Pure bookkeeping: no threads, no
clock, no model calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice

from generation_service.engine.fair_queue import FairQueue
from generation_service.engine.sequence import PromptState, Sequence
from generation_service.models.base import ModelInfo

MAX_STALL_SECONDS = 0.04
"""How long running sequences wait between two steps for the admission of others. One admission is always possible."""
MAX_OVERTAKES = 8
"""How many smaller requests of a model can be admitted before one that waits for its memory."""
ENCODE_AHEAD = 16
"""Requests beyond a full batch whose prompts are encoded while they wait."""
STEPS_AHEAD, MIN_ROWS_PER_NEWCOMER = 3, 8
"""How many steps the newcomers of a batch take before each of its steps, and how many of its rows there must be for
each of them. So few rows take a fraction of the batch's time. On a CPU they take more of it, but its default batch of 8
is too small for that."""
_RECENT_ADMISSIONS = 8


class Scheduler:
    """Continuous batching: requests join and leave a running batch between steps.

    Waiting requests are admitted in the order of a `FairQueue`, except that one whose prompt is being encoded or that
    waits for its model's memory is overtaken for a while. Each round steps every sequence whose reader has room once,
    one batch per model, so that neither a slow reader nor a busy model holds up the others. Whoever has no audio yet
    comes first: an admission before the next step, the batch of a newcomer before the others, and a few newcomers take
    several steps by themselves before each step of their batch.
    """

    def __init__(self, max_batch_size: int, max_waiting: int) -> None:
        self.max_batch_size = max_batch_size
        self.max_waiting = max_waiting
        self._waiting = FairQueue()
        self._running: list[Sequence] = []
        self._has_cancelled = self._has_suspending = False
        self._deadlines: dict[Sequence, float] = {}
        """Waiting request → its deadline."""
        self._rejected_frames: dict[ModelInfo, int] = {}
        """Model → the least `context_frames` for which it had no memory, since a sequence last left the batch."""
        self._admission_seconds: deque[float] = deque(maxlen=_RECENT_ADMISSIONS)

    @property
    def running(self) -> tuple[Sequence, ...]:
        """The sequences in the batch, oldest first."""
        return tuple(self._running)

    @property
    def waiting(self) -> tuple[Sequence, ...]:
        """The sequences waiting for admission, next first."""
        return tuple(self._waiting)

    @property
    def sequences(self) -> list[Sequence]:
        """All sequences, running and waiting, in no particular order."""
        return [*self._running, *self._waiting.unordered()]

    @property
    def running_count(self) -> int:
        return len(self._running)

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether both the batch and the queue are full."""
        return len(self._running) + len(self._waiting) >= self.max_batch_size + self.max_waiting

    @property
    def has_work(self) -> bool:
        """Whether a round would admit or step anything."""
        return any(sequence.is_ready for sequence in self._running) or self._next_admissible() is not None

    @property
    def audio_seconds_ahead(self) -> float:
        """Seconds of audio that all requests still need."""
        return self._waiting.audio_seconds + sum(sequence.seconds_remaining for sequence in self._running)

    @property
    def next_deadline(self) -> float | None:
        """The earliest deadline of a waiting request."""
        return min(self._deadlines.values(), default=None)

    def add(self, sequence: Sequence) -> None:
        """Appends a request to the queue. The caller has checked `is_full`."""
        self._waiting.push(sequence)
        if sequence.deadline is not None:
            self._deadlines[sequence] = sequence.deadline

    def admit(self, stalled_seconds: float = 0.0) -> Sequence | None:
        """Moves the next waiting request into the batch. Returns None if none can be admitted before the next step.

        Is called until it returns None, with the time that the admissions since the last step have taken. Another one
        must be expected to end within `MAX_STALL_SECONDS`, by those that `record_admission` has counted.
        """
        expected_seconds = max(self._admission_seconds, default=0.0)
        if stalled_seconds and stalled_seconds + expected_seconds > MAX_STALL_SECONDS:
            return None
        found = self._next_admissible()
        if found is None:
            return None
        sequence, overtaken = found
        for other in overtaken:
            if other.info == sequence.info:  # Those of other models take none of its memory.
                other.times_overtaken += 1
        self._waiting.take(sequence)
        self._deadlines.pop(sequence, None)
        self._running.append(sequence)
        return sequence

    def record_admission(self, seconds: float) -> None:
        """Counts how long an admission occupies this thread or the device, without the loading of a model."""
        self._admission_seconds.append(seconds)

    def requeue(self, sequence: Sequence) -> None:
        """Returns an admitted request to the queue for lack of memory; a cancelled one is dropped.

        Until a sequence leaves the batch, no request of the same or a larger size is admitted. Smaller ones can
        overtake this one, but only `MAX_OVERTAKES` times.
        """
        self._running.remove(sequence)
        if sequence.is_cancelled:
            return
        self._waiting.push_front(sequence)
        if sequence.deadline is not None:
            self._deadlines[sequence] = sequence.deadline
        known = self._rejected_frames.get(sequence.info, sequence.context_frames)
        self._rejected_frames[sequence.info] = min(known, sequence.context_frames)

    def prompts_to_encode(self) -> list[Sequence]:
        """Returns the next waiting requests of one model whose prompts are to be encoded, next first."""
        prompts: list[Sequence] = []
        for sequence in self._ahead():
            if sequence.prompt is PromptState.WAITING and (not prompts or sequence.info == prompts[0].info):
                prompts.append(sequence)
        return prompts

    def next_batches(self) -> list[list[Sequence]]:
        """Returns the batches of the next round; all sequences of a batch use the same model."""
        batches: dict[tuple[ModelInfo, int], list[Sequence]] = {}
        batch: list[Sequence] = []
        info, group = None, 0
        for sequence in self._running:
            if not sequence.is_ready:
                continue
            if sequence.info is not info or sequence.group != group:  # Hashing an info for each row would be slow.
                info, group = sequence.info, sequence.group
                batch = batches.setdefault((info, group), [])
            batch.append(sequence)
        return sorted(batches.values(), key=lambda batch: all(sequence.frames_delivered for sequence in batch))

    def cancel(self, sequence: Sequence) -> None:
        """Removes a waiting request at once, and marks a running one for `remove_cancelled`."""
        if sequence.is_waiting:
            self.discard(sequence)
        sequence.is_cancelled = True
        self._has_cancelled = True

    def discard(self, sequence: Sequence) -> None:
        """Removes a waiting request."""
        self._waiting.remove(sequence)
        self._deadlines.pop(sequence, None)

    def discard_late(self, now: float, shortest_seconds: Callable[[Sequence], float]) -> list[Sequence]:
        """Removes and returns the waiting requests whose deadline can't be met.

        `shortest_seconds` estimates how long a request would take if it started now.
        """
        late = [
            sequence for sequence, deadline in self._deadlines.items() if now + shortest_seconds(sequence) > deadline
        ]
        for sequence in late:
            self.discard(sequence)
        return late

    def remove_cancelled(self) -> list[Sequence]:
        """Removes the cancelled sequences from the batch and returns them. The caller releases their states."""
        if not self._has_cancelled:
            return []
        self._has_cancelled = False
        cancelled = [sequence for sequence in self._running if sequence.is_cancelled]
        if cancelled:
            self._running = [sequence for sequence in self._running if not sequence.is_cancelled]
            self._rejected_frames.clear()
        return cancelled

    def suspend(self, sequence: Sequence) -> None:
        """Marks a request for `remove_suspending`, wherever it is."""
        sequence.is_suspending = self._has_suspending = True

    def remove_suspending(self) -> list[Sequence]:
        """Removes the requests to be suspended from the batch and the queue. Returns them; the caller releases their
        states."""
        if not self._has_suspending:
            return []
        self._has_suspending = False
        suspending = [each for each in self.sequences if each.is_suspending and not each.is_cancelled]
        for sequence in suspending:
            if sequence.is_waiting:
                self.discard(sequence)
            else:
                self.finish(sequence)
        return suspending

    def finish(self, sequence: Sequence) -> None:
        """Removes a completed or failed sequence from the batch."""
        self._running.remove(sequence)
        self._rejected_frames.clear()

    def clear(self) -> list[Sequence]:
        """Removes and returns all sequences, running and waiting."""
        removed = [*self._running, *self._waiting.clear()]
        self._running.clear()
        self._deadlines.clear()
        return removed

    def _ahead(self) -> islice[Sequence]:
        return islice(self._waiting, self.max_batch_size + ENCODE_AHEAD)

    def _next_admissible(self) -> tuple[Sequence, list[Sequence]] | None:
        """Returns the waiting request to admit, and those that it overtakes although they could run but for memory."""
        if len(self._running) >= self.max_batch_size:
            return None
        overtaken: list[Sequence] = []
        blocked: set[ModelInfo] = set()
        for sequence in self._ahead():
            if sequence.prompt is PromptState.WAITING or sequence.prompt is PromptState.ENCODING:
                continue  # The prompt thread takes prompts in this order, so the request is overtaken briefly.
            rejected_frames = self._rejected_frames.get(sequence.info)
            if rejected_frames is None or (sequence.context_frames < rejected_frames and sequence.info not in blocked):
                return sequence, overtaken
            if sequence.times_overtaken >= MAX_OVERTAKES:
                blocked.add(sequence.info)
            overtaken.append(sequence)
        return None


def choose_newcomers(batch: list[Sequence]) -> list[Sequence]:
    """Returns the rows of a batch to step before it because they have no audio yet; none if they are too many.

    A row that continues a clip is none of them: it reads the clip first, for longer than a step takes.
    """
    newcomers = [
        sequence for sequence in batch if not sequence.frames_delivered and sequence.parameters.prompt_audio is None
    ]
    return newcomers if MIN_ROWS_PER_NEWCOMER * len(newcomers) < len(batch) else []
