"""Continuous batching for asyncio: submit a request, then read its audio while it is generated."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from structlog.contextvars import get_contextvars

from dgx_music.errors import ResourceExhausted, ServiceError, Unavailable
from generation_service.engine.device_task import DeviceTask
from generation_service.engine.device_thread import DeviceThread
from generation_service.engine.engine_status import EngineStatus
from generation_service.engine.failures import deadline_error, format_error
from generation_service.engine.model_cache import ModelCache
from generation_service.engine.prompt_thread import PromptThread
from generation_service.engine.request_handle import GenerationHandle
from generation_service.engine.scheduler import Scheduler
from generation_service.engine.sequence import PromptState, Sequence
from generation_service.engine.shared_state import LoopCalls, SharedState
from generation_service.engine.throughput import Throughput
from generation_service.hardware.memory import CPU_BATCH_SIZE
from generation_service.models.base import GenerationParameters, ModelInfo
from generation_service.models.catalog import ModelCatalog
from generation_service.models.execution import ModelExecution
from service_runtime.observability.logging import get_logger
from service_runtime.supervision import UnrecoverableError

log = get_logger(__name__)

MODEL_CALL_TIMEOUT_SECONDS = 60.0
"""A model call that takes longer counts as hung."""
STOP_TIMEOUT_SECONDS = 10.0
"""How long `stop` waits for the current step."""
MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 1.0, 60.0
"""Bounds of the retry time given with a full queue."""


class Engine:
    """Runs the models of a catalog on one device thread. All methods are called on the event loop.

    A request waits in a bounded queue, where clients are served in turn and prompts are encoded, is admitted into the
    batch between steps, and leaves it when it is completed, cancelled or failed. If its reader falls `buffer_seconds`
    of audio behind, the request is paused while the others continue; if the reader then reads nothing for
    `stall_seconds`, the request is cancelled.
    """

    def __init__(
        self,
        catalog: ModelCatalog,
        *,
        max_batch_size: int = CPU_BATCH_SIZE,
        max_waiting: int = 100,
        buffer_seconds: float = 8.0,
        stall_seconds: float = 60.0,
        preload: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`preload` names a model to load at the start, "" the default model; until it is loaded, `check` fails."""
        self.catalog = catalog
        self._buffer_seconds = buffer_seconds
        self._stall_seconds = stall_seconds
        self._shared = SharedState(
            ModelCache(catalog), Scheduler(max_batch_size, max_waiting), Throughput(clock), clock
        )
        self._device_thread: DeviceThread | None = None
        self._prompt_thread: PromptThread | None = None
        self._preload = preload
        self._preload_task: asyncio.Task[None] | None = None
        self._preload_problem = "it is being loaded"
        """Why the model to preload is not loaded; empty once it has been."""

    async def start(self) -> None:
        """Starts the threads. A model that is not preloaded is loaded by the first request for it, or by `load`."""
        call_on_loop = asyncio.get_running_loop().call_soon_threadsafe
        self._device_thread = DeviceThread(self._shared, LoopCalls(call_on_loop))
        self._prompt_thread = PromptThread(self._shared, self._device_thread, LoopCalls(call_on_loop))
        self._device_thread.start()
        self._prompt_thread.start()
        if self._preload is not None:
            self._preload_task = asyncio.create_task(self._load_by_name(self._preload))

    async def stop(self) -> None:
        """Ends the threads after the current step. Unfinished requests fail with Unavailable."""
        if self._preload_task is not None:
            self._preload_task.cancel()
        for thread in (self._prompt_thread, self._device_thread):
            if thread is not None:
                thread.stop()
        for thread in (self._prompt_thread, self._device_thread):
            if thread is not None and not await asyncio.to_thread(thread.join, STOP_TIMEOUT_SECONDS):
                # The thread is a daemon: it ends with the process.
                log.error("engine_thread_hung", timeout_seconds=STOP_TIMEOUT_SECONDS)

    def check(self) -> None:
        """Raises UnrecoverableError if the device thread has failed, and Unavailable if it is not running or hangs in
        a model call, or if the model to preload is not loaded."""
        device_thread, prompt_thread = self._require_device_thread(), self._prompt_thread
        for thread in (device_thread, prompt_thread):
            started_at = None if thread is None else thread.call_started_at
            if started_at is not None and self._shared.clock() - started_at > MODEL_CALL_TIMEOUT_SECONDS:
                raise Unavailable(
                    f"a model call has been running for more than {MODEL_CALL_TIMEOUT_SECONDS:g} s",
                    reason="ENGINE_HANGS",
                )
        self._check_preload()

    def submit(
        self,
        info: ModelInfo,
        parameters: GenerationParameters,
        *,
        client: str = "",
        weight: float = 1.0,
        deadline: float | None = None,
    ) -> GenerationHandle:
        """Queues a request for a model that the catalog describes as `info`.

        `client` says who asks: waiting clients are served in turn, in proportion to their `weight`. All audio must be
        generated by `deadline`, in seconds of `time.monotonic`; a request that can't meet it, at the speed measured,
        fails while it waits.

        Raises ResourceExhausted if the queue is full, DeadlineExceeded if the deadline could not be met even without
        waiting, and Unavailable if the engine is not running.
        """
        handle = GenerationHandle(
            info, parameters, self, buffer_seconds=self._buffer_seconds, stall_seconds=self._stall_seconds
        )
        shared, sequence = self._shared, handle.sequence
        sequence.client, sequence.weight, sequence.deadline = client, weight, deadline
        sequence.log_fields = get_contextvars()
        sequence.timings.submitted_at = now = shared.clock()
        with shared.lock:
            self._require_device_thread()
            if shared.scheduler.is_full:
                raise ResourceExhausted(
                    f"the queue is full ({shared.scheduler.running_count} running, {shared.scheduler.waiting_count} "
                    "waiting); retry when a generation finishes",
                    reason="QUEUE_FULL",
                    retry_after_seconds=self._estimate_retry_seconds(),
                )
            shortest_seconds = shared.shortest_seconds(sequence)
            if deadline is not None and now + shortest_seconds >= deadline:
                raise deadline_error(sequence, now, shortest_seconds)
            sequence.prompt = shared.find_prompt_state(sequence)
            shared.scheduler.add(sequence)
            if sequence.prompt is PromptState.WAITING:
                shared.prompt_work.notify()
            if sequence.prompt is not PromptState.WAITING or deadline is not None:
                shared.device_work.notify()
        return handle

    def status(self) -> EngineStatus:
        """Returns the engine's current load."""
        shared = self._shared
        kv_reserved_bytes, kv_limit_bytes = shared.models.kv_cache_bytes()
        with shared.lock:
            running, waiting = shared.scheduler.running_count, shared.scheduler.waiting_count
            steps_per_second, audio_seconds_per_second = shared.throughput.rates()
            total_audio_seconds = shared.throughput.total_audio_seconds
            step_seconds, batch_sizes = shared.throughput.step_seconds.copy(), shared.throughput.batch_sizes.copy()
        return EngineStatus(
            running=running,
            waiting=waiting,
            max_batch_size=shared.scheduler.max_batch_size,
            max_waiting=shared.scheduler.max_waiting,
            steps_per_second=steps_per_second,
            audio_seconds_per_second=audio_seconds_per_second,
            kv_reserved_bytes=kv_reserved_bytes,
            kv_limit_bytes=kv_limit_bytes,
            total_audio_seconds=total_audio_seconds,
            step_seconds=step_seconds,
            batch_sizes=batch_sizes,
        )

    def is_loaded(self, info: ModelInfo) -> bool:
        """Whether this model is in memory."""
        return info in self._shared.models

    def has_loaded(self, name: str) -> bool:
        """Whether a model with this name is in memory, even if its files have since changed or been deleted."""
        return name in self._shared.models.names

    def loaded_models(self) -> dict[ModelInfo, ModelExecution | None]:
        """Returns the models in memory, and how each runs; None for a model that does not say."""
        return self._shared.models.executions()

    async def load(self, info: ModelInfo) -> None:
        """Loads a model into memory between two steps. Raises whatever loading it raises."""
        await self._run_task(lambda thread: thread.submit_load(info))

    async def unload(self, name: str) -> None:
        """Removes a model from memory between two steps. Raises FailedPrecondition while requests use it."""
        await self._run_task(lambda thread: thread.submit_unload(name))

    def frames_consumed(self, sequence: Sequence, frames: int) -> None:
        """Frees the space of frames that a handle's reader has consumed, which may resume a paused sequence."""
        with self._shared.lock:
            was_ready = sequence.is_ready
            sequence.frames_buffered -= frames
            if sequence.is_ready and not was_ready:
                self._shared.device_work.notify()

    def cancel(self, sequence: Sequence) -> None:
        """Cancels a handle's request. A running one leaves the batch at the next step."""
        with self._shared.lock:
            self._shared.scheduler.cancel(sequence)
            self._shared.device_work.notify()
            self._shared.prompt_work.notify()

    def suspend(self, sequence: Sequence) -> None:
        """Has a handle's request end at the next step with `GenerationSuspended`."""
        with self._shared.lock:
            self._shared.scheduler.suspend(sequence)
            self._shared.device_work.notify()

    async def _run_task(self, submit: Callable[[DeviceThread], DeviceTask]) -> None:
        with self._shared.lock:
            task = submit(self._require_device_thread())
        await asyncio.wrap_future(task.future)

    async def _load_by_name(self, name: str) -> None:
        try:
            await self.load(await self.catalog.describe(name))
            self._preload_problem = ""
        except Exception as error:
            problem = error.message if isinstance(error, ServiceError) else format_error(error)
            self._preload_problem = f"it could not be loaded: {problem}"
            log.error("preload_failed", model=name, error=problem)

    def _check_preload(self) -> None:
        """Raises Unavailable unless the model to preload has been loaded, at the start or later."""
        if self._preload is not None and self._preload_problem:
            name = self._preload or self.catalog.default_name
            if not self.has_loaded(name):
                is_loading = self._preload_task is not None and not self._preload_task.done()
                raise Unavailable(
                    f"model {name!r} is not ready: {self._preload_problem}",
                    reason="MODEL_LOADING" if is_loading else "PRELOAD_FAILED",
                )
            self._preload_problem = ""

    def _estimate_retry_seconds(self) -> float:
        """Estimates how long all the audio that is running and queued will take."""
        rate = self._shared.throughput.busy_rate
        if not rate:
            return MIN_RETRY_SECONDS
        return min(MAX_RETRY_SECONDS, max(MIN_RETRY_SECONDS, self._shared.scheduler.audio_seconds_ahead / rate))

    def _require_device_thread(self) -> DeviceThread:
        if self._device_thread is not None and self._device_thread.is_accepting:
            return self._device_thread
        if self._device_thread is not None and self._device_thread.fatal_error is not None:
            raise UnrecoverableError(
                f"the engine is not running: {format_error(self._device_thread.fatal_error)}", reason="ENGINE_STOPPED"
            )
        raise Unavailable("the engine is not running", reason="ENGINE_STOPPED")
