"""The one thread that models are called from."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from generation_service.model import FloatArray, Model
from generation_service.registry import ModelCatalog
from generation_service.scheduler import Scheduler
from generation_service.sequence import Sequence, Stage
from generation_service.throughput import Throughput
from service_runtime.errors import ResourceExhausted, ServiceError, Unavailable
from service_runtime.telemetry import get_logger

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
        catalog: ModelCatalog,
        scheduler: Scheduler,
        throughput: Throughput,
        changed: threading.Condition,
        post: Post,
    ) -> None:
        self._catalog = catalog
        self._scheduler = scheduler
        self._throughput = throughput
        self._changed = changed
        self._post_to_loop = post
        self._outbox: list[tuple[Callable[..., None], Any]] = []
        self._models: dict[str, Model[Any]] = {}
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

    def is_loaded(self, name: str) -> bool:
        """Whether the model is in memory."""
        return name in self._models

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
            left = Unavailable(f"the engine stopped: {_describe(error)}", reason="ENGINE_STOPPED")
            log.critical("engine stopped", exc_info=error)
        finally:
            with self._changed:
                self._stopping = True
                everyone = self._scheduler.clear()
            for sequence in everyone:
                self._release(sequence)
                self._post(sequence.sink.on_finished, left)
            self._flush()

    def _wait_for_work(self) -> bool:
        """Frees the places of cancelled sequences, and sleeps while there is nothing to do. False at the end."""
        while True:
            with self._changed:
                cancelled = self._scheduler.reap()
                if not cancelled:
                    if self._stopping or self._scheduler.has_work:
                        return not self._stopping
                    self._changed.wait()
            for sequence in cancelled:
                self._release(sequence)

    def _admit(self) -> None:
        with self._changed:
            sequence = self._scheduler.admit()
        if sequence is None:
            return
        try:
            if sequence.info.name not in self._models:
                sequence.stage = Stage.LOADING_MODEL
                self._load(sequence.info.name)
            sequence.stage = Stage.ENCODING_PROMPT
            self._prefill(sequence)
            metadata = dict(sequence.state.metadata)
        except Exception as error:
            self._fail(sequence, _model_error(sequence, "before the first step", error))
            return
        sequence.stage = Stage.GENERATING
        self._post(sequence.sink.on_started, metadata)

    def _load(self, name: str) -> None:
        began = time.monotonic()
        self._models[name] = self._catalog.get(name).load()
        log.info("model loaded", model=name, seconds=round(time.monotonic() - began, 3))

    def _prefill(self, sequence: Sequence) -> None:
        self.calling_since = time.monotonic()
        try:
            sequence.state = self._models[sequence.info.name].prefill(sequence.parameters)
        finally:
            self.calling_since = None

    def _step(self, batch: list[Sequence]) -> None:
        with self._changed:
            batch = [sequence for sequence in batch if not sequence.cancelled]
        if not batch:
            return
        model = self._models[batch[0].info.name]
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
        if len(batch) == 1:
            sequence = batch[0]
            self._fail(sequence, _model_error(sequence, f"at step {sequence.steps + 1}", error))
            return
        # Nobody knows whose fault it was, nor how far the states got. A state's samples do not depend on its company,
        # so each starts over in a batch of its own, and what was delivered already is made again and dropped.
        log.warning("batch failed", model=batch[0].info.name, rows=len(batch), error=_describe(error))
        for sequence in batch:
            self._release(sequence)
        for sequence in batch:
            sequence.alone = True
            sequence.made = sequence.steps = sequence.empty_steps = 0
            try:
                self._prefill(sequence)
            except Exception as again:
                self._fail(sequence, _model_error(sequence, "while starting over", again))

    def _take(self, sequence: Sequence, block: FloatArray) -> None:
        """Passes on what a step made, and retires the sequence that is done."""
        frames, channels = sequence.parameters.frames, sequence.info.channels
        sequence.steps += 1
        if block.ndim != 2 or block.shape[1] != channels or block.dtype != np.float32:
            self._fail(sequence, _wrong_output(sequence, f"{block.dtype} {list(block.shape)}, not [n, {channels}]"))
            return
        seen = max(0, sequence.delivered - sequence.made)  # Frames of this block that a replay makes again.
        sequence.made += len(block)
        sequence.empty_steps = 0 if len(block) else sequence.empty_steps + 1
        if sequence.made > frames or sequence.empty_steps > MAX_EMPTY_STEPS:
            self._fail(sequence, _wrong_output(sequence, f"{sequence.made} frames of {frames}"))
            return
        new = block[seen:]
        if len(new):
            with self._changed:
                sequence.buffered += len(new)
            sequence.delivered += len(new)
            self._post(sequence.sink.on_block, new)
        if sequence.made == frames:
            self._retire(sequence, None)

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
            self._models[sequence.info.name].release(state)
        except Exception as error:  # The others go on; what is lost is memory, and the log says so.
            log.error("state not released", model=sequence.info.name, exc_info=error)


def _call_all(calls: list[tuple[Callable[..., None], Any]]) -> None:
    for call, argument in calls:
        call(argument)


def _model_error(sequence: Sequence, when: str, error: Exception) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    name = sequence.info.name
    failed: ServiceError
    if isinstance(error, MemoryError):
        failed = ResourceExhausted(
            f"model {name!r} ran out of memory {when}; ask for less at once, or a shorter duration",
            reason="MODEL_OUT_OF_MEMORY",
            retry_after_seconds=10.0,
        )
    else:
        failed = ServiceError(f"model {name!r} failed {when}: {_describe(error)}", reason="MODEL_FAILED")
    failed.__cause__ = error
    return failed


def _wrong_output(sequence: Sequence, what: str) -> ServiceError:
    return ServiceError(
        f"model {sequence.info.name!r} broke its word at step {sequence.steps}: it made {what}", reason="MODEL_OUTPUT"
    )


def _describe(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")[:500]
