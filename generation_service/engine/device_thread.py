"""The one thread from which models are loaded, prefilled and stepped."""

from __future__ import annotations

import threading
from collections import deque

from dgx_music.errors import FailedPrecondition, ResourceExhausted, ServiceError, Unavailable
from generation_service.engine.batch_runner import BatchRunner
from generation_service.engine.device_task import DeviceTask
from generation_service.engine.failures import deadline_error, format_error, to_service_error
from generation_service.engine.sequence import Sequence, Stage
from generation_service.engine.shared_state import LoopCalls, SharedState
from generation_service.models.base import ModelInfo, TooLarge
from generation_service.models.device_errors import is_fatal
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

DEADLINE_CHECK_SECONDS = 0.1
"""How often the deadlines of waiting requests are checked."""


class DeviceThread:
    """Loads models, admits requests, steps batches and finishes sequences until it is stopped."""

    def __init__(self, shared: SharedState, calls: LoopCalls) -> None:
        self._shared = shared
        self._scheduler = shared.scheduler
        self._calls = calls
        self._runner = BatchRunner(shared, calls)
        self._tasks: deque[DeviceTask] = deque()
        self._is_stopping = False
        self._failure: BaseException | None = None
        self._next_deadline_check = 0.0
        self.fatal_error: BaseException | None = None
        """The error that ended the thread; None if it is running or was stopped."""
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Asks the thread to end after the current step and returns at once. Unfinished requests fail with
        Unavailable."""
        with self._shared.lock:
            self._is_stopping = True
            self._shared.device_work.notify()

    def fail(self, error: BaseException) -> None:
        """Has the thread end with an error that another thread met."""
        with self._shared.lock:
            self._failure = error
            self._shared.device_work.notify()

    def join(self, timeout_seconds: float) -> bool:
        """Waits for the thread to end. Returns False if it has not ended in time."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    @property
    def is_accepting(self) -> bool:
        """Whether a request that is added now, under the lock, will be processed."""
        return not self._is_stopping and self._thread.is_alive()

    @property
    def call_started_at(self) -> float | None:
        """When the current prefill or step started, by the engine's clock. None during loading and between calls."""
        return self._runner.call_started_at

    def submit_load(self, info: ModelInfo) -> DeviceTask:
        """Schedules the loading of a model between two steps. The caller holds the lock, as for `submit_unload`."""
        return self._submit(DeviceTask(lambda: self._load(info)))

    def submit_unload(self, name: str) -> DeviceTask:
        """Schedules the unloading of a model between two steps. The task raises FailedPrecondition if the model is in
        use."""
        return self._submit(DeviceTask(lambda: self._unload(name)))

    def _submit(self, task: DeviceTask) -> DeviceTask:
        self._tasks.append(task)
        self._shared.device_work.notify()
        return task

    def _run(self) -> None:
        reason = Unavailable("the server is shutting down", reason="SHUTTING_DOWN", retry_after_seconds=1.0)
        try:
            while self._wait_for_work():
                self._admit()
                self._calls.send()
                with self._shared.lock:
                    batches = self._scheduler.next_batches()
                for batch in batches:
                    self._runner.step(batch)
                    self._calls.send()
        except BaseException as error:
            self.fatal_error = error
            reason = Unavailable(f"the engine stopped: {format_error(error)}", reason="ENGINE_STOPPED")
            log.critical("engine_stopped", exc_info=error)
        finally:
            with self._shared.lock:
                self._is_stopping = True
                unfinished = self._scheduler.clear()
                tasks = tuple(self._tasks)
            for task in tasks:
                task.reject(reason)
            for sequence in unfinished:
                if self.fatal_error is None:  # Else there is no device whose memory could be freed.
                    self._runner.release(sequence)
                self._calls.add(sequence.sink.on_finished, reason)
            self._calls.send()

    def _wait_for_work(self) -> bool:
        """Runs pending tasks, removes cancelled and late sequences, then sleeps until there is something to admit or
        step. Returns False when the thread should end."""
        while True:
            with self._shared.lock:
                if self._failure is not None:
                    raise self._failure
                cancelled, suspended = self._scheduler.remove_cancelled(), self._scheduler.remove_suspending()
                self._end_late_requests()
                task = self._tasks.popleft() if self._tasks and not self._is_stopping else None
                if not cancelled and not suspended and task is None:
                    if self._is_stopping or self._scheduler.has_work:
                        return not self._is_stopping
                    self._calls.send()
                    self._shared.device_work.wait(self._seconds_to_deadline_check())
            for sequence in cancelled:
                self._runner.release(sequence)
            for sequence in suspended:
                self._runner.suspend(sequence)
            if task is not None and (error := task.run()) and is_fatal(error):
                raise error

    def _end_late_requests(self) -> None:
        now = self._shared.clock()
        if now < self._next_deadline_check or self._scheduler.next_deadline is None:
            return
        self._next_deadline_check = now + DEADLINE_CHECK_SECONDS
        late = self._scheduler.discard_late(now, self._shared.shortest_seconds)
        if late:
            self._shared.prompt_work.notify()
        for sequence in late:
            error = deadline_error(sequence, now, self._shared.shortest_seconds(sequence))
            log.bind(**sequence.log_fields).info("deadline_missed", model=sequence.info.name, error=error.message)
            self._calls.add(sequence.sink.on_finished, error)

    def _seconds_to_deadline_check(self) -> float | None:
        """How long the thread may sleep; None if no waiting request has a deadline."""
        deadline = self._scheduler.next_deadline
        return None if deadline is None else max(DEADLINE_CHECK_SECONDS, deadline - self._shared.clock())

    def _admit(self) -> None:
        """Admits waiting requests for as long as running ones can wait."""
        started_at = self._shared.clock()
        stalled_seconds = device_seconds = 0.0
        while True:
            with self._shared.lock:
                sequence = self._scheduler.admit(stalled_seconds)
                if sequence is not None:
                    self._shared.prompt_work.notify()  # Prompts are encoded only so far ahead of the batch.
            if sequence is None:
                return
            sequence.timings.admitted_at = self._shared.clock()
            device_seconds += self._start(sequence)
            stalled_seconds = max(self._shared.clock() - started_at, device_seconds, 1e-9)

    def _start(self, sequence: Sequence) -> float:
        """Loads the model if necessary, and prefills an admitted request. Returns the seconds of `BatchRunner.prefill`,
        0 if the request can't start."""
        try:
            if sequence.info not in self._shared.models:
                sequence.stage = Stage.LOADING_MODEL
                self._load(sequence.info)
            sequence.stage = Stage.ENCODING_PROMPT
            sequence.timings.prefill_at = started_at = self._shared.clock()
            device_seconds = self._runner.prefill(sequence)
            metadata, sections = dict(sequence.state.metadata), tuple(sequence.state.sections)
        except Exception as error:
            if is_fatal(error):
                raise
            self._refuse(sequence, to_service_error(sequence.info.name, "before the first step", error))
            return 0.0
        sequence.stage = Stage.GENERATING
        sequence.timings.started_at = self._shared.clock()
        self._calls.add(sequence.sink.on_started, metadata, sections)
        with self._shared.lock:
            self._scheduler.record_admission(max(self._shared.clock() - started_at, device_seconds))
        return device_seconds

    def _refuse(self, sequence: Sequence, error: ServiceError) -> None:
        """Ends an admitted request that can't start, or requeues it if it needs memory that others will free."""
        with self._shared.lock:
            waits = (
                isinstance(error, ResourceExhausted)
                and not isinstance(error, TooLarge)
                and self._scheduler.running_count > 1
            )
            if waits:
                sequence.stage = Stage.QUEUED
                self._scheduler.requeue(sequence)
        if not waits:
            self._runner.finish(sequence, error)

    def _load(self, info: ModelInfo) -> None:
        try:
            self._shared.models.get(info)
        except Exception as error:
            if is_fatal(error):
                raise
            raise to_service_error(info.name, "while loading", error) from None
        self._shared.notice_loaded(info)

    def _unload(self, name: str) -> None:
        with self._shared.lock:
            users = sum(sequence.info.name == name for sequence in self._scheduler.running)
        if users:
            raise FailedPrecondition(
                f"model {name!r} is in use by {users} running generation{'s' if users > 1 else ''}; "
                "wait until they finish, or cancel them",
                reason="MODEL_IN_USE",
                metadata={"model": name},
            )
        self._shared.models.unload(name)
