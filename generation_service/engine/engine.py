"""Continuous batching for asyncio: submit a request, read its audio as it is made."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass

from dgx_music.errors import ResourceExhausted, Unavailable
from generation_service.engine.device_thread import Device
from generation_service.engine.failures import describe
from generation_service.engine.model_cache import LoadedModels
from generation_service.engine.request_handle import GenerationHandle
from generation_service.engine.scheduler import Scheduler
from generation_service.engine.sequence import Sequence
from generation_service.engine.throughput import Throughput
from generation_service.models.base import GenerationParameters, ModelInfo
from generation_service.models.catalog import ModelCatalog
from generation_service.models.device import device_in_use
from service_runtime.observability.logging import get_logger
from service_runtime.supervision import UnrecoverableError

log = get_logger(__name__)

STEP_LIMIT_SECONDS = 60.0
"""A model call that takes longer counts as hung."""
STOP_SECONDS = 10.0
"""How long the step that is going on may take at the end."""


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """What the engine is doing. Rates are over the last ten seconds."""

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

    A request waits in a bounded queue, is admitted into the batch between steps, and leaves it when it is done,
    cancelled or failed. When its reader falls `buffer_seconds` of audio behind, it is paused and the others go on;
    a reader that takes nothing for `stall_seconds` after that is given up.
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
        self._changed = threading.Condition()
        self._models = LoadedModels(catalog)
        self._device: Device | None = None

    async def start(self) -> None:
        """Starts the device thread. Models are loaded when they are first asked for."""
        post = asyncio.get_running_loop().call_soon_threadsafe
        self._device = Device(self._models, self._scheduler, self._throughput, self._changed, post)
        self._device.start()

    async def stop(self) -> None:
        """Ends the device thread after the step that is going on; every request left fails with Unavailable."""
        if self._device is None:
            return
        self._device.stop()
        if not await asyncio.to_thread(self._device.join, STOP_SECONDS):
            log.error("the device thread hangs in a model call; it ends with the process")

    def check(self) -> None:
        """Raises UnrecoverableError if the device thread has failed, Unavailable if it was stopped or hangs in a model
        call."""
        since = self._running_device().calling_since
        if since is not None and time.monotonic() - since > STEP_LIMIT_SECONDS:
            raise Unavailable(f"a model call takes over {STEP_LIMIT_SECONDS:g} s", reason="ENGINE_HANGS")

    def submit(self, info: ModelInfo, parameters: GenerationParameters) -> GenerationHandle:
        """Queues a request for a model as the catalog describes it. Raises ResourceExhausted where the queue is full,
        Unavailable where the engine is not running."""
        handle = GenerationHandle(
            info, parameters, self, buffer_seconds=self._buffer_seconds, stall_seconds=self._stall_seconds
        )
        with self._changed:
            self._running_device()
            if self._scheduler.is_full:
                raise ResourceExhausted(
                    f"{len(self._scheduler.running)} generations run and {len(self._scheduler.waiting)} wait; "
                    "ask again when one has ended",
                    reason="QUEUE_FULL",
                    retry_after_seconds=self._seconds_to_next_place(),
                )
            self._scheduler.add(handle.sequence)
            self._changed.notify()
        return handle

    def status(self) -> EngineStatus:
        """What it is doing now."""
        kv_reserved_bytes, kv_limit_bytes = self._models.cache_bytes()
        with self._changed:
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
        """Whether the model is in memory."""
        return info in self._models

    def holds(self, name: str) -> bool:
        """Whether a model of that name is in memory, also one whose files are gone or others by now."""
        return name in self._models.names

    async def load(self, info: ModelInfo) -> None:
        """Brings a model into memory between two steps. Raises what its loading raises."""
        with self._changed:
            chore = self._running_device().load(info)
        await asyncio.wrap_future(chore.done)

    async def unload(self, name: str) -> None:
        """Takes a model out of memory. Raises FailedPrecondition while requests run on it."""
        with self._changed:
            chore = self._running_device().unload(name)
        await asyncio.wrap_future(chore.done)

    def taken(self, sequence: Sequence, frames: int) -> None:
        """A handle's reader took so many frames: there is room to make more."""
        with self._changed:
            was_ready = sequence.is_ready
            sequence.buffered -= frames
            if sequence.is_ready and not was_ready:
                self._changed.notify()

    def cancel(self, sequence: Sequence) -> None:
        """A handle's reader wants no more: its place is free at the next step."""
        with self._changed:
            self._scheduler.cancel(sequence)
            self._changed.notify()

    def _seconds_to_next_place(self) -> float:
        """An estimate: when the sequence with the least left is done, if each goes on at its share of the speed."""
        _, audio_seconds_per_second = self._throughput.rates()
        running = self._scheduler.running
        if not audio_seconds_per_second or not running:
            return 1.0
        shortest = min(sequence.seconds_left for sequence in running)
        return min(60.0, max(1.0, shortest * len(running) / audio_seconds_per_second))

    def _running_device(self) -> Device:
        if self._device is not None and self._device.accepts:
            return self._device
        if self._device is not None and self._device.fatal is not None:
            raise UnrecoverableError(
                f"the engine is not running: {describe(self._device.fatal)}", reason="ENGINE_STOPPED"
            )
        raise Unavailable("the engine is not running", reason="ENGINE_STOPPED")
