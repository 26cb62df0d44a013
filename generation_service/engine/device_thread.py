"""The one thread that models are called from."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from dgx_music.errors import FailedPrecondition, ResourceExhausted, ServiceError, Unavailable
from generation_service.engine.chores import Chore
from generation_service.engine.failures import describe, model_error, wrong_output
from generation_service.engine.model_cache import LoadedModels
from generation_service.engine.scheduler import Scheduler
from generation_service.engine.sequence import Sequence, Stage
from generation_service.engine.throughput import Throughput
from generation_service.models.base import FloatArray, ModelInfo, TooLarge
from generation_service.models.device_errors import is_fatal
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

MAX_EMPTY_STEPS = 1000
"""A sequence that gets no frame in so many steps in a row never ends: it is failed."""

Post = Callable[..., object]
"""Runs a function with its arguments on the event loop."""


class Device:
    """Loads models, admits, steps and retires, until told to stop.

    `changed` guards the scheduler, the throughput and what sequences share with the event loop. It is never held while
    a model is called, so the event loop waits microseconds for it at most.
    """

    def __init__(
        self,
        models: LoadedModels,
        scheduler: Scheduler,
        throughput: Throughput,
        changed: threading.Condition,
        post: Post,
    ) -> None:
        self._models = models
        self._scheduler = scheduler
        self._throughput = throughput
        self._changed = changed
        self._post_to_loop = post
        self._outbox: list[tuple[Callable[..., None], Any]] = []
        self._chores: deque[Chore] = deque()
        self._stopping = False
        self.fatal: BaseException | None = None
        """What ended the thread, if it was not `stop`."""
        self.calling_since: float | None = None
        """When the model call that is going on began, by the monotonic clock; loading does not count."""
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends after the step that is going on; every request left fails with Unavailable. Returns at once."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def join(self, seconds: float) -> bool:
        """Waits for the end; False if it has not come."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def accepts(self) -> bool:
        """Whether a request that is added under the lock now will be looked at."""
        return not self._stopping and self._thread.is_alive()

    def load(self, info: ModelInfo) -> Chore:
        """Has the model brought into memory between two steps."""
        return self._add(Chore(lambda: self._load(info)))

    def unload(self, name: str) -> Chore:
        """Has the model taken out of memory between two steps; FailedPrecondition where a request runs on it."""
        return self._add(Chore(lambda: self._unload(name)))

    def _add(self, chore: Chore) -> Chore:
        with self._changed:
            self._chores.append(chore)
            self._changed.notify()
        return chore

    def _post(self, call: Callable[..., None], argument: Any) -> None:
        """Has the event loop call this after the next `_flush`."""
        self._outbox.append((call, argument))

    def _flush(self) -> None:
        # One hand-over for all rows of a step: waking the event loop costs more than a row's bookkeeping.
        if self._outbox:
            self._post_to_loop(_call_all, self._outbox)
            self._outbox = []

    def _run(self) -> None:
        left = Unavailable("the server is shutting down", reason="SHUTTING_DOWN", retry_after_seconds=1.0)
        try:
            while self._wait_for_work():
                self._admit()
                self._flush()
                with self._changed:
                    batches = self._scheduler.batches()
                for batch in batches:
                    self._step(batch)
                    self._flush()
        except BaseException as error:
            self.fatal = error
            left = Unavailable(f"the engine stopped: {describe(error)}", reason="ENGINE_STOPPED")
            log.critical("engine stopped", exc_info=error)
        finally:
            with self._changed:
                self._stopping = True
                everyone = self._scheduler.clear()
                chores = tuple(self._chores)
            for chore in chores:
                chore.refuse(left)
            for sequence in everyone:
                self._release(sequence)
                self._post(sequence.sink.on_finished, left)
            self._flush()

    def _wait_for_work(self) -> bool:
        """Does the chores, frees the places of cancelled sequences, and sleeps while there is nothing to do. False at
        the end."""
        while True:
            with self._changed:
                cancelled = self._scheduler.reap()
                chore = self._chores.popleft() if self._chores and not self._stopping else None
                if not cancelled and chore is None:
                    if self._stopping or self._scheduler.has_work:
                        return not self._stopping
                    self._changed.wait()
            for sequence in cancelled:
                self._release(sequence)
            if chore is not None and (error := chore.run()) and is_fatal(error):
                raise error

    def _admit(self) -> None:
        with self._changed:
            sequence = self._scheduler.admit()
        if sequence is None:
            return
        try:
            if sequence.info not in self._models:
                sequence.stage = Stage.LOADING_MODEL
                self._load(sequence.info)
            sequence.stage = Stage.ENCODING_PROMPT
            self._prefill(sequence)
            metadata = dict(sequence.state.metadata)
        except TooLarge as error:
            self._fail(sequence, error)
            return
        except ResourceExhausted as error:
            with self._changed:
                if waits := len(self._scheduler.running) > 1:
                    sequence.stage = Stage.QUEUED
                    self._scheduler.put_back(sequence)
            if not waits:
                self._fail(sequence, error)
            return
        except Exception as error:
            self._blame(sequence, "before the first step", error)
            return
        sequence.stage = Stage.GENERATING
        self._post(sequence.sink.on_started, metadata)

    def _load(self, info: ModelInfo) -> None:
        try:
            self._models.get(info)
        except Exception as error:
            if is_fatal(error):
                raise
            raise model_error(info.name, "while loading", error) from error

    def _unload(self, name: str) -> None:
        with self._changed:
            users = sum(sequence.info.name == name for sequence in self._scheduler.running)
        if users:
            raise FailedPrecondition(
                f"{users} generations run on model {name!r}: wait for their end, or cancel them",
                reason="MODEL_IN_USE",
                metadata={"model": name},
            )
        self._models.forget(name)

    def _prefill(self, sequence: Sequence) -> None:
        self.calling_since = time.monotonic()
        try:
            sequence.state = self._models.get(sequence.info).prefill(sequence.parameters)
        finally:
            self.calling_since = None

    def _step(self, batch: list[Sequence]) -> None:
        with self._changed:
            batch = [sequence for sequence in batch if not sequence.cancelled]
        if not batch:
            return
        model = self._models.get(batch[0].info)
        delivered = sum(sequence.delivered for sequence in batch)
        self.calling_since = time.monotonic()
        try:
            blocks = model.step([sequence.state for sequence in batch])
        except Exception as error:
            self._step_failed(batch, error)
            return
        finally:
            self.calling_since = None
        for sequence, block in zip(batch, blocks, strict=True):
            self._take(sequence, block)
        new_frames = sum(sequence.delivered for sequence in batch) - delivered
        with self._changed:
            self._throughput.record(new_frames / model.info.sample_rate_hz)

    def _step_failed(self, batch: list[Sequence], error: Exception) -> None:
        if is_fatal(error):
            raise error
        if len(batch) == 1:
            sequence = batch[0]
            self._blame(sequence, f"at step {sequence.steps + 1}", error)
            return
        # Nobody knows whose fault it was, nor how far the states got. A state's samples do not depend on its company,
        # so each starts over in a batch of its own, and what was delivered already is made again and dropped.
        log.warning("batch failed", model=batch[0].info.name, rows=len(batch), error=describe(error))
        for sequence in batch:
            self._release(sequence)
        for sequence in batch:
            sequence.alone = True
            sequence.made = sequence.steps = sequence.empty_steps = 0
            try:
                self._prefill(sequence)
            except Exception as again:
                self._blame(sequence, "while starting over", again)

    def _take(self, sequence: Sequence, block: FloatArray) -> None:
        """Passes on what a step made, and retires the sequence that is done."""
        frames, channels = sequence.parameters.frames, sequence.info.channels
        sequence.steps += 1
        if block.ndim != 2 or block.shape[1] != channels or block.dtype != np.float32:
            self._fail(sequence, wrong_output(sequence, f"{block.dtype} {list(block.shape)}, not [n, {channels}]"))
            return
        seen = max(0, sequence.delivered - sequence.made)  # Frames of this block that a replay makes again.
        sequence.made += len(block)
        sequence.empty_steps = 0 if len(block) else sequence.empty_steps + 1
        if sequence.made > frames or sequence.empty_steps > MAX_EMPTY_STEPS:
            self._fail(sequence, wrong_output(sequence, f"{sequence.made} frames of {frames}"))
            return
        new = block[seen:]
        if len(new):
            with self._changed:
                sequence.buffered += len(new)
            sequence.delivered += len(new)
            self._post(sequence.sink.on_block, new)
        if sequence.made == frames:
            self._retire(sequence, None)

    def _blame(self, sequence: Sequence, when: str, error: Exception) -> None:
        """Fails the request that the error came of; raises the error where the device is lost with it."""
        if is_fatal(error):
            raise error
        self._fail(sequence, model_error(sequence.info.name, when, error))

    def _fail(self, sequence: Sequence, error: ServiceError) -> None:
        log.warning("generation failed", model=sequence.info.name, error=error.message, exc_info=error.__cause__)
        self._retire(sequence, error)

    def _retire(self, sequence: Sequence, error: ServiceError | None) -> None:
        with self._changed:
            self._scheduler.retire(sequence)
        self._release(sequence)
        self._post(sequence.sink.on_finished, error)

    def _release(self, sequence: Sequence) -> None:
        state, sequence.state = sequence.state, None
        if state is None:
            return
        try:
            self._models.get(sequence.info).release(state)
        except Exception as error:  # The others go on; what is lost is memory, and the log says so.
            log.error("state not released", model=sequence.info.name, exc_info=error)


def _call_all(calls: list[tuple[Callable[..., None], Any]]) -> None:
    for call, argument in calls:
        call(argument)
