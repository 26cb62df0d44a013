"""Continuous batching for asyncio: submit a request, then read its audio while it is generated."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass

from dgx_music.errors import ResourceExhausted, Unavailable
from generation_service.engine.device_thread import DeviceThread
from generation_service.engine.failures import format_error
from generation_service.engine.model_cache import ModelCache
from generation_service.engine.request_handle import GenerationHandle
from generation_service.engine.scheduler import Scheduler
from generation_service.engine.sequence import Sequence
from generation_service.engine.throughput import Throughput
from generation_service.models.base import GenerationParameters, ModelInfo
from generation_service.models.catalog import ModelCatalog
from generation_service.models.device import device_in_use
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


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """A snapshot of the engine's load. Rates are averages over the last ten seconds."""

    running: int
    waiting: int
    max_batch_size: int
    max_waiting: int
    steps_per_second: float
    audio_seconds_per_second: float
    device: str
    kv_reserved_bytes: int
    kv_limit_bytes: int


class Engine:
    """Runs the models of a catalog on one device thread. All methods are called on the event loop.

    A request waits in a bounded queue, is admitted into the batch between steps, and leaves it when it is completed,
    cancelled or failed. If its reader falls `buffer_seconds` of audio behind, the request is paused while the others
    continue; if the reader then reads nothing for `stall_seconds`, the request is cancelled.
    """

    def __init__(
        self,
        catalog: ModelCatalog,
        *,
        max_batch_size: int = 8,
        max_waiting: int = 100,
        buffer_seconds: float = 8.0,
        stall_seconds: float = 60.0,
    ) -> None:
        self.catalog = catalog
        self._buffer_seconds = buffer_seconds
        self._stall_seconds = stall_seconds
        self._scheduler = Scheduler(max_batch_size, max_waiting)
        self._throughput = Throughput()
        self._work_available = threading.Condition()
        self._models = ModelCache(catalog)
        self._device_thread: DeviceThread | None = None

    async def start(self) -> None:
        """Starts the device thread. A model is loaded by the first request for it, or by `load`."""
        call_on_loop = asyncio.get_running_loop().call_soon_threadsafe
        self._device_thread = DeviceThread(
            self._models, self._scheduler, self._throughput, self._work_available, call_on_loop
        )
        self._device_thread.start()

    async def stop(self) -> None:
        """Ends the device thread after the current step. Unfinished requests fail with Unavailable."""
        if self._device_thread is None:
            return
        self._device_thread.stop()
        if not await asyncio.to_thread(self._device_thread.join, STOP_TIMEOUT_SECONDS):
            # The thread is a daemon: it ends with the process.
            log.error("device_thread_hung", timeout_seconds=STOP_TIMEOUT_SECONDS)

    def check(self) -> None:
        """Raises UnrecoverableError if the device thread has failed, and Unavailable if it is not running or hangs in
        a model call."""
        started_at = self._require_device_thread().model_call_started_at
        if started_at is not None and time.monotonic() - started_at > MODEL_CALL_TIMEOUT_SECONDS:
            raise Unavailable(
                f"a model call has been running for more than {MODEL_CALL_TIMEOUT_SECONDS:g} s", reason="ENGINE_HANGS"
            )

    def submit(self, info: ModelInfo, parameters: GenerationParameters) -> GenerationHandle:
        """Queues a request for a model that the catalog describes as `info`.

        Raises ResourceExhausted if the queue is full, and Unavailable if the engine is not running.
        """
        handle = GenerationHandle(
            info, parameters, self, buffer_seconds=self._buffer_seconds, stall_seconds=self._stall_seconds
        )
        with self._work_available:
            self._require_device_thread()
            if self._scheduler.is_full:
                raise ResourceExhausted(
                    f"the queue is full ({len(self._scheduler.running)} running, {len(self._scheduler.waiting)} "
                    "waiting); retry when a generation finishes",
                    reason="QUEUE_FULL",
                    retry_after_seconds=self._estimate_retry_seconds(),
                )
            self._scheduler.add(handle.sequence)
            self._work_available.notify()
        return handle

    def status(self) -> EngineStatus:
        """Returns the engine's current load."""
        kv_reserved_bytes, kv_limit_bytes = self._models.kv_cache_bytes()
        with self._work_available:
            steps_per_second, audio_seconds_per_second = self._throughput.rates()
            return EngineStatus(
                running=len(self._scheduler.running),
                waiting=len(self._scheduler.waiting),
                max_batch_size=self._scheduler.max_batch_size,
                max_waiting=self._scheduler.max_waiting,
                steps_per_second=steps_per_second,
                audio_seconds_per_second=audio_seconds_per_second,
                device=device_in_use(),
                kv_reserved_bytes=kv_reserved_bytes,
                kv_limit_bytes=kv_limit_bytes,
            )

    def is_loaded(self, info: ModelInfo) -> bool:
        """Whether this model is in memory."""
        return info in self._models

    def has_loaded(self, name: str) -> bool:
        """Whether a model with this name is in memory, even if its files have since changed or been deleted."""
        return name in self._models.names

    def loaded_models(self) -> dict[ModelInfo, ModelExecution | None]:
        """Returns the models in memory, and how each runs; None for a model that does not say."""
        return self._models.executions()

    async def load(self, info: ModelInfo) -> None:
        """Loads a model into memory between two steps. Raises whatever loading it raises."""
        with self._work_available:
            task = self._require_device_thread().submit_load(info)
        await asyncio.wrap_future(task.future)

    async def unload(self, name: str) -> None:
        """Removes a model from memory between two steps. Raises FailedPrecondition while requests use it."""
        with self._work_available:
            task = self._require_device_thread().submit_unload(name)
        await asyncio.wrap_future(task.future)

    def frames_consumed(self, sequence: Sequence, frames: int) -> None:
        """Frees the space of frames that a handle's reader has consumed, which may resume a paused sequence."""
        with self._work_available:
            was_ready = sequence.is_ready
            sequence.frames_buffered -= frames
            if sequence.is_ready and not was_ready:
                self._work_available.notify()

    def cancel(self, sequence: Sequence) -> None:
        """Cancels a handle's request. A running one leaves the batch at the next step."""
        with self._work_available:
            self._scheduler.cancel(sequence)
            self._work_available.notify()

    def _estimate_retry_seconds(self) -> float:
        """Estimates when the running sequence with the least audio remaining finishes, if all advance equally fast."""
        _, audio_seconds_per_second = self._throughput.rates()
        running = self._scheduler.running
        if not audio_seconds_per_second or not running:
            return MIN_RETRY_SECONDS
        shortest = min(sequence.seconds_remaining for sequence in running)
        return min(MAX_RETRY_SECONDS, max(MIN_RETRY_SECONDS, shortest * len(running) / audio_seconds_per_second))

    def _require_device_thread(self) -> DeviceThread:
        if self._device_thread is not None and self._device_thread.is_accepting:
            return self._device_thread
        if self._device_thread is not None and self._device_thread.fatal_error is not None:
            raise UnrecoverableError(
                f"the engine is not running: {format_error(self._device_thread.fatal_error)}", reason="ENGINE_STOPPED"
            )
        raise Unavailable("the engine is not running", reason="ENGINE_STOPPED")
