"""All engines of the service as one: routes each request to the least loaded, and reports on them all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dgx_music.errors import ResourceExhausted, Unavailable
from generation_service.engine.request_handle import GenerationHandle
from generation_service.engine.sequence import Stage
from generation_service.hardware.devices import Device, Devices
from generation_service.hardware.gpu_readings import GpuReading
from generation_service.models.base import GenerationParameters, ModelInfo
from generation_service.models.catalog import ModelCatalog
from generation_service.models.execution import ModelExecution
from generation_service.processes.engine_client import (
    ENGINE_UNAVAILABLE,
    EngineClient,
    EngineReport,
    EngineState,
    RequestOrigin,
)
from generation_service.processes.request_metrics import record_when_ended
from service_runtime.supervision import UnrecoverableError

RETRY_SECONDS = 1.0
"""The retry time while no engine accepts requests."""


@dataclass(frozen=True, slots=True)
class RequestReport:
    """A request in an engine."""

    origin: RequestOrigin
    device: Device
    info: ModelInfo
    stage: Stage
    frames: int
    """Frames generated so far."""
    expected_frames: int
    age_seconds: float
    progress: float
    """The fraction of the work that is done, 0 to 1."""


@dataclass(frozen=True, slots=True)
class _OpenRequest:
    handle: GenerationHandle
    engine: EngineClient
    origin: RequestOrigin
    submitted_at: float


class EnginePool:
    """Routes requests to engines. All methods but `reports` and `readings` are called on the event loop."""

    def __init__(self, catalog: ModelCatalog, engines: Sequence[EngineClient], devices: Devices) -> None:
        self.catalog = catalog
        self._engines = tuple(engines)
        self._devices = devices
        self._requests: list[_OpenRequest] = []
        """Oldest first; those that have ended are dropped from time to time."""
        self._submitting: list[tuple[EngineClient, float]] = []
        """The engine and the seconds of audio of each request that is not accepted yet. No sums: they would round, and
        idle engines would no longer be equally loaded."""
        self._turn = 0
        """Number of requests that were routed; decides between equally loaded engines."""

    async def start(self) -> None:
        """Starts the engines. Returns before those in processes of their own are ready."""
        for engine in self._engines:
            await engine.start()

    async def stop(self) -> None:
        """Ends the engines. Unfinished requests fail with Unavailable."""
        await asyncio.gather(*(engine.stop() for engine in self._engines))

    def check(self) -> None:
        """Raises Unavailable if no engine accepts requests, with the reason of each; UnrecoverableError if none ever
        will again in this process."""
        errors: list[Unavailable] = []
        for engine in self._engines:
            try:
                engine.check()
            except Unavailable as error:
                errors.append(error)
            else:
                return
        if len(errors) == 1 or all(isinstance(error, UnrecoverableError) for error in errors):
            raise errors[0]
        raise Unavailable(
            "; ".join(error.message for error in errors),
            reason=ENGINE_UNAVAILABLE,
            retry_after_seconds=RETRY_SECONDS,
        )

    @property
    def capacity(self) -> int:
        """How many requests fit into the batches of the engines that accept requests."""
        return sum(engine.capacity for engine in self._engines)

    def on_capacity_changed(self, callback: Callable[[], None]) -> None:
        """Has `callback` called whenever `capacity` has changed."""
        for engine in self._engines:
            engine.on_capacity_changed = callback

    async def submit(
        self, info: ModelInfo, parameters: GenerationParameters, origin: RequestOrigin | None = None
    ) -> GenerationHandle:
        """Queues a request for a model that the catalog describes as `info`, at the least loaded engine that takes it.

        Raises ResourceExhausted if all queues are full, Unavailable if no engine accepts requests, and InvalidArgument
        if an adapter is not installed or does not fit the model.
        """
        await self.catalog.check_adapters(info.name, parameters.adapters)
        origin = origin or RequestOrigin()
        self._drop_ended()
        engines = self._by_load(info)
        self._turn += 1
        full: list[ResourceExhausted] = []
        lost: list[Unavailable] = []
        for engine in engines:
            submitting = (engine, parameters.frames / info.sample_rate_hz)
            self._submitting.append(submitting)
            try:
                handle = await engine.submit(info, parameters, origin)
            except ResourceExhausted as error:
                if error.reason != "QUEUE_FULL":
                    raise
                full.append(error)
            except Unavailable as error:  # It has just ended. Nothing has been generated, so another one can.
                lost.append(error)
            else:
                record_when_ended(handle)
                self._requests.append(_OpenRequest(handle, engine, origin, time.monotonic()))
                return handle
            finally:
                self._submitting.remove(submitting)
        if not full:
            raise lost[0]
        raise min(full, key=lambda error: error.retry_after_seconds or 0.0)

    def _by_load(self, info: ModelInfo) -> list[EngineClient]:
        """Returns the engines that accept requests: first the one with the least audio left to generate for each place
        in its batch, and of several like that one that has loaded the model."""
        if len(self._engines) == 1:
            return list(self._engines)
        # An engine that starts is not ready, but it takes requests, and processes them once it is.
        engines = self._serving() or [
            engine for engine in self._engines if engine.report().state is EngineState.STARTING
        ]
        if not engines:
            self.check()
            raise Unavailable("no engine accepts requests", reason=ENGINE_UNAVAILABLE)
        seconds = dict.fromkeys(engines, 0.0)
        running = [(request.engine, request.handle.sequence.seconds_remaining) for request in self._requests]
        for engine, remaining in running + self._submitting:
            if engine in seconds:
                seconds[engine] += remaining
        turn = self._turn % len(engines)
        in_turn = engines[turn:] + engines[:turn]
        return sorted(
            in_turn,
            key=lambda engine: (seconds[engine] / engine.max_batch_size, info not in engine.report().models),
        )

    def _serving(self) -> list[EngineClient]:
        return [engine for engine in self._engines if engine.capacity]

    def _drop_ended(self) -> None:
        self._requests = [request for request in self._requests if not request.handle.is_finished]

    async def refresh(self) -> None:
        """Brings `reports` up to date with the engines that respond soon."""
        await asyncio.gather(*(engine.refresh() for engine in self._engines))

    def reports(self) -> list[EngineReport]:
        """Returns the state of each engine. May be called from any thread."""
        return [engine.report() for engine in self._engines]

    def requests(self) -> list[RequestReport]:
        """Returns the requests in the engines, oldest first."""
        self._drop_ended()
        now = time.monotonic()
        return [
            RequestReport(
                request.origin,
                request.engine.device,
                request.handle.info,
                request.handle.stage,
                request.handle.frames_delivered,
                request.handle.parameters.frames,
                now - request.submitted_at,
                request.handle.progress,
            )
            for request in self._requests
        ]

    def readings(self) -> list[GpuReading]:
        """Returns what the device of each engine reports now. Takes milliseconds; may be called from any thread."""
        return [self._devices.read(engine.device) for engine in self._engines]

    def execution(self, info: ModelInfo) -> ModelExecution | None:
        """Returns how the model runs on the first engine that has loaded it; None if none has, or it doesn't say."""
        return next((execution for engine in self._engines if (execution := engine.models().get(info))), None)

    def is_loaded(self, info: ModelInfo) -> bool:
        """Whether this model is in the memory of an engine."""
        return any(info in engine.models() for engine in self._engines)

    def has_loaded(self, name: str) -> bool:
        """Whether a model with this name is in memory, even if its files have since changed or been deleted."""
        return bool(self._engines_with(name))

    async def load(self, info: ModelInfo) -> None:
        """Loads a model into the memory of each engine that accepts requests, or of all if none does: that may be for
        want of this model. Raises whatever loading it raises."""
        await asyncio.gather(*(engine.load(info) for engine in self._serving() or self._engines))

    async def unload(self, name: str) -> None:
        """Removes a model from memory everywhere. Raises FailedPrecondition while requests use it."""
        await asyncio.gather(*(engine.unload(name) for engine in self._engines_with(name)))

    def _engines_with(self, name: str) -> list[EngineClient]:
        return [engine for engine in self._engines if any(info.name == name for info in engine.models())]
