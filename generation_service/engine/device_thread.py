"""The one thread from which models are called."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from dgx_music.errors import FailedPrecondition, ResourceExhausted, ServiceError, Unavailable
from generation_service.engine.device_task import DeviceTask
from generation_service.engine.failures import format_error, invalid_output_error, to_service_error
from generation_service.engine.model_cache import ModelCache
from generation_service.engine.scheduler import Scheduler
from generation_service.engine.sequence import Sequence, Stage
from generation_service.engine.throughput import Throughput
from generation_service.models.base import FloatArray, ModelInfo, TooLarge
from generation_service.models.device_errors import is_fatal
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

MAX_EMPTY_STEPS = 1000
"""A sequence that yields no frame in more consecutive steps than this would never end, so it fails."""

CallOnLoop = Callable[..., object]
"""Schedules a function with its arguments on the event loop."""


class DeviceThread:
    """Loads models, admits requests, steps batches and finishes sequences until it is stopped.

    `work_available` guards the scheduler, the throughput and the fields of sequences that the event loop shares. It is
    never held during a model call, so the event loop waits for it for microseconds at most.
    """

    def __init__(
        self,
        models: ModelCache,
        scheduler: Scheduler,
        throughput: Throughput,
        work_available: threading.Condition,
        call_on_loop: CallOnLoop,
    ) -> None:
        self._models = models
        self._scheduler = scheduler
        self._throughput = throughput
        self._work_available = work_available
        self._call_on_loop = call_on_loop
        self._pending_calls: list[Callable[[], None]] = []
        self._tasks: deque[DeviceTask] = deque()
        self._is_stopping = False
        self.fatal_error: BaseException | None = None
        """The error that ended the thread; None if it is running or was stopped."""
        self.model_call_started_at: float | None = None
        """When the current prefill or step started, by the monotonic clock. None during loading and between calls."""
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Asks the thread to end after the current step and returns at once. Unfinished requests fail with
        Unavailable."""
        with self._work_available:
            self._is_stopping = True
            self._work_available.notify()

    def join(self, timeout_seconds: float) -> bool:
        """Waits for the thread to end. Returns False if it has not ended in time."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    @property
    def is_accepting(self) -> bool:
        """Whether a request that is added now, under the lock, will be processed."""
        return not self._is_stopping and self._thread.is_alive()

    def submit_load(self, info: ModelInfo) -> DeviceTask:
        """Schedules the loading of a model between two steps."""
        return self._submit(DeviceTask(lambda: self._load(info)))

    def submit_unload(self, name: str) -> DeviceTask:
        """Schedules the unloading of a model between two steps. The task raises FailedPrecondition if the model is in
        use."""
        return self._submit(DeviceTask(lambda: self._unload(name)))

    def _submit(self, task: DeviceTask) -> DeviceTask:
        with self._work_available:
            self._tasks.append(task)
            self._work_available.notify()
        return task

    def _enqueue_call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Adds a call on the event loop to those that the next `_flush_calls` sends."""
        self._pending_calls.append(partial(function, *arguments))

    def _flush_calls(self) -> None:
        # All rows of a step share one wake-up: waking the event loop costs more than a row's bookkeeping.
        if self._pending_calls:
            self._call_on_loop(_run_calls, self._pending_calls)
            self._pending_calls = []

    def _run(self) -> None:
        reason = Unavailable("the server is shutting down", reason="SHUTTING_DOWN", retry_after_seconds=1.0)
        try:
            while self._wait_for_work():
                self._admit()
                self._flush_calls()
                with self._work_available:
                    batches = self._scheduler.next_batches()
                for batch in batches:
                    self._step(batch)
                    self._flush_calls()
        except BaseException as error:
            self.fatal_error = error
            reason = Unavailable(f"the engine stopped: {format_error(error)}", reason="ENGINE_STOPPED")
            log.critical("engine_stopped", exc_info=error)
        finally:
            with self._work_available:
                self._is_stopping = True
                unfinished = self._scheduler.clear()
                tasks = tuple(self._tasks)
            for task in tasks:
                task.reject(reason)
            for sequence in unfinished:
                self._release(sequence)
                self._enqueue_call(sequence.sink.on_finished, reason)
            self._flush_calls()

    def _wait_for_work(self) -> bool:
        """Runs pending tasks and removes cancelled sequences, then sleeps until there is something to admit or step.
        Returns False when the thread should end."""
        while True:
            with self._work_available:
                cancelled = self._scheduler.remove_cancelled()
                task = self._tasks.popleft() if self._tasks and not self._is_stopping else None
                if not cancelled and task is None:
                    if self._is_stopping or self._scheduler.has_work:
                        return not self._is_stopping
                    self._work_available.wait()
            for sequence in cancelled:
                self._release(sequence)
            if task is not None and (error := task.run()) and is_fatal(error):
                raise error

    def _admit(self) -> None:
        with self._work_available:
            sequence = self._scheduler.admit()
        if sequence is None:
            return
        try:
            if sequence.info not in self._models:
                sequence.stage = Stage.LOADING_MODEL
                self._load(sequence.info)
            sequence.stage = Stage.ENCODING_PROMPT
            self._prefill(sequence)
            metadata, sections = dict(sequence.state.metadata), tuple(sequence.state.sections)
        except TooLarge as error:
            self._finish_with_error(sequence, error)
            return
        except ResourceExhausted as error:
            with self._work_available:
                if can_wait := len(self._scheduler.running) > 1:
                    sequence.stage = Stage.QUEUED
                    self._scheduler.requeue(sequence)
            if not can_wait:
                self._finish_with_error(sequence, error)
            return
        except Exception as error:
            self._fail_request(sequence, "before the first step", error)
            return
        sequence.stage = Stage.GENERATING
        self._enqueue_call(sequence.sink.on_started, metadata, sections)

    def _load(self, info: ModelInfo) -> None:
        try:
            self._models.get(info)
        except Exception as error:
            if is_fatal(error):
                raise
            raise to_service_error(info.name, "while loading", error) from error

    def _unload(self, name: str) -> None:
        with self._work_available:
            users = sum(sequence.info.name == name for sequence in self._scheduler.running)
        if users:
            raise FailedPrecondition(
                f"model {name!r} is in use by {users} running generation{'s' if users > 1 else ''}; "
                "wait until they finish, or cancel them",
                reason="MODEL_IN_USE",
                metadata={"model": name},
            )
        self._models.unload(name)

    def _prefill(self, sequence: Sequence) -> None:
        self.model_call_started_at = time.monotonic()
        try:
            sequence.state = self._models.get(sequence.info).prefill(sequence.parameters)
        finally:
            self.model_call_started_at = None

    def _step(self, batch: list[Sequence]) -> None:
        with self._work_available:
            batch = [sequence for sequence in batch if not sequence.is_cancelled]
        if not batch:
            return
        model = self._models.get(batch[0].info)
        frames_before = sum(sequence.frames_delivered for sequence in batch)
        self.model_call_started_at = time.monotonic()
        try:
            blocks = model.step([sequence.state for sequence in batch])
        except Exception as error:
            self._handle_step_failure(batch, error)
            return
        finally:
            self.model_call_started_at = None
        for sequence, block in zip(batch, blocks, strict=True):
            self._deliver_block(sequence, block)
        new_frames = sum(sequence.frames_delivered for sequence in batch) - frames_before
        with self._work_available:
            self._throughput.record_step(new_frames / model.info.sample_rate_hz)

    def _handle_step_failure(self, batch: list[Sequence], error: Exception) -> None:
        if is_fatal(error):
            raise error
        if len(batch) == 1:
            sequence = batch[0]
            self._fail_request(sequence, f"at step {sequence.steps + 1}", error)
            return
        # It is unknown which sequence caused the failure and how far the states advanced. A state's samples do not
        # depend on the rest of the batch, so each sequence is restarted solo and replays what was already delivered.
        log.warning("batch_failed", model=batch[0].info.name, rows=len(batch), error=format_error(error))
        for sequence in batch:
            self._release(sequence)
        for sequence in batch:
            sequence.is_solo = True
            sequence.frames_produced = sequence.steps = sequence.empty_steps = 0
            try:
                self._prefill(sequence)
            except Exception as prefill_error:
                self._fail_request(sequence, "while restarting", prefill_error)

    def _deliver_block(self, sequence: Sequence, block: FloatArray | ServiceError) -> None:
        """Validates the output of a step, passes it to the sink, and finishes the sequence after its last frame."""
        if isinstance(block, ServiceError):
            self._finish_with_error(sequence, block)
            return
        frames, channels = sequence.parameters.frames, sequence.info.channels
        sequence.steps += 1
        if block.ndim != 2 or block.shape[1] != channels or block.dtype != np.float32:
            problem = f"{block.dtype} {list(block.shape)}, expected float32 [n, {channels}]"
            self._finish_with_error(sequence, invalid_output_error(sequence, problem))
            return
        replayed = max(0, sequence.frames_delivered - sequence.frames_produced)
        sequence.frames_produced += len(block)
        sequence.empty_steps = 0 if len(block) else sequence.empty_steps + 1
        if sequence.frames_produced > frames or sequence.empty_steps > MAX_EMPTY_STEPS:
            problem = f"{sequence.frames_produced} frames, expected {frames}"
            self._finish_with_error(sequence, invalid_output_error(sequence, problem))
            return
        new = block[replayed:]
        if len(new):
            with self._work_available:
                sequence.frames_buffered += len(new)
            sequence.frames_delivered += len(new)
            self._enqueue_call(sequence.sink.on_block, new)
        if sequence.frames_produced == frames:
            self._finish(sequence, None)

    def _fail_request(self, sequence: Sequence, when: str, error: Exception) -> None:
        """Fails the request that caused the error. Raises the error instead if the device is lost with it."""
        if is_fatal(error):
            raise error
        self._finish_with_error(sequence, to_service_error(sequence.info.name, when, error))

    def _finish_with_error(self, sequence: Sequence, error: ServiceError) -> None:
        log.warning("generation_failed", model=sequence.info.name, error=error.message, exc_info=error.__cause__)
        self._finish(sequence, error)

    def _finish(self, sequence: Sequence, error: ServiceError | None) -> None:
        with self._work_available:
            self._scheduler.finish(sequence)
        self._release(sequence)
        self._enqueue_call(sequence.sink.on_finished, error)

    def _release(self, sequence: Sequence) -> None:
        state, sequence.state = sequence.state, None
        if state is None:
            return
        try:
            self._models.get(sequence.info).release(state)
        except Exception as error:  # Only memory is lost; the other requests continue.
            log.error("state_release_failed", model=sequence.info.name, exc_info=error)


def _run_calls(calls: list[Callable[[], None]]) -> None:
    for call in calls:
        call()
