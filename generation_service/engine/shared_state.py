"""What the threads of an engine share with each other and with the event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from generation_service.engine.model_cache import ModelCache
from generation_service.engine.scheduler import Scheduler
from generation_service.engine.sequence import PromptState, Sequence
from generation_service.engine.throughput import Throughput
from generation_service.models.base import ModelInfo

CallOnLoop = Callable[..., object]
"""Schedules a function with its arguments on the event loop."""

SPEED_MARGIN = 1.5
"""By how much a request may turn out faster than the latest ones, since the batch may become smaller."""


class SharedState:
    """The models, the scheduler and the throughput, the lock that guards them, and the means to wake the threads.

    `lock` guards the scheduler, the throughput and the shared fields of sequences. It is never held during a model
    call, so the event loop waits for it for microseconds at most.
    """

    def __init__(
        self, models: ModelCache, scheduler: Scheduler, throughput: Throughput, clock: Callable[[], float]
    ) -> None:
        self.models = models
        self.scheduler = scheduler
        self.throughput = throughput
        self.clock = clock
        self.lock = threading.Lock()
        self.device_work = threading.Condition(self.lock)
        """Notified when the device thread may have something to do."""
        self.prompt_work = threading.Condition(self.lock)
        """Notified when the prompt thread may have something to do."""

    def find_prompt_state(self, sequence: Sequence) -> PromptState:
        """Returns the state of the prompt of a request that has just been submitted, or whose model has been loaded."""
        if sequence.info not in self.models:
            return PromptState.UNKNOWN
        is_encoded = self.models.prompt_encoder(sequence.info) is None
        return PromptState.READY if is_encoded else PromptState.WAITING

    def notice_loaded(self, info: ModelInfo) -> None:
        """Has the prompts encoded that waited for this model to be loaded."""
        with self.lock:
            for sequence in self.scheduler.sequences:
                if sequence.prompt is PromptState.UNKNOWN and sequence.info == info:
                    sequence.prompt = self.find_prompt_state(sequence)
            self.prompt_work.notify()

    def shortest_seconds(self, sequence: Sequence) -> float:
        """Estimates how long a request would take if it started now; 0 if its model's speed is not known."""
        speed = self.throughput.sequence_speed(sequence.info.name)
        return 0.0 if speed is None else sequence.audio_seconds / (speed * SPEED_MARGIN)


class LoopCalls:
    """Calls for the event loop, collected by one thread and sent together: waking the loop costs more than a row."""

    def __init__(self, call_on_loop: CallOnLoop) -> None:
        self._call_on_loop = call_on_loop
        self._calls: list[Callable[[], None]] = []

    def add(self, function: Callable[..., None], *arguments: Any) -> None:
        """Adds a call to those that the next `send` sends."""
        self._calls.append(partial(function, *arguments))

    def send(self) -> None:
        """Wakes the loop to make the calls, if there are any."""
        if self._calls:
            self._call_on_loop(_run_calls, self._calls)
            self._calls = []


def _run_calls(calls: list[Callable[[], None]]) -> None:
    for call in calls:
        call()
