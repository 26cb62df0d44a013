"""The engine that runs within the service's own process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dgx_music.errors import ServiceError, Unavailable
from generation_service.engine.engine import Engine
from generation_service.engine.request_handle import GenerationHandle
from generation_service.hardware.devices import Device
from generation_service.models.base import GenerationParameters, ModelInfo
from generation_service.models.catalog import ModelCatalog
from generation_service.processes.engine_client import ENGINE_UNAVAILABLE, EngineReport, EngineState, RequestOrigin
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)


class LocalEngine:
    """Implements `EngineClient`."""

    def __init__(
        self, device: Device, engine: Engine, catalog: ModelCatalog, *, max_batch_size: int, preload: str | None = None
    ) -> None:
        self.device = device
        self.max_batch_size = max_batch_size
        self.on_capacity_changed: Callable[[], None] = lambda: None
        self._engine = engine
        self._catalog = catalog
        self._preload = preload
        self._preload_task: asyncio.Task[None] | None = None

    @property
    def capacity(self) -> int:
        return self.max_batch_size if self._preload_task is None else 0

    async def start(self) -> None:
        await self._engine.start()
        if self._preload is not None:
            self._preload_task = asyncio.create_task(self._load_first(self._preload))

    async def _load_first(self, name: str) -> None:
        try:
            await self._engine.load(await self._catalog.describe(name))
        except ServiceError as error:  # A request for the model reports it; other models can be used.
            log.error("preload_failed", model=name, error=error.message)
        finally:
            self._preload_task = None
            self.on_capacity_changed()

    async def stop(self) -> None:
        await self._engine.stop()

    def check(self) -> None:
        self._engine.check()
        if self._preload_task is not None:
            raise Unavailable(f"the engine is loading model {self._preload!r}", reason=ENGINE_UNAVAILABLE)

    def report(self) -> EngineReport:
        state, problem = EngineState.SERVING, ""
        try:
            self.check()
        except Unavailable as error:
            state = EngineState.FAILED if self._preload_task is None else EngineState.STARTING
            problem = error.message
        return EngineReport(self.device, state, problem, 0, self._engine.status(), self._engine.loaded_models())

    async def refresh(self) -> None:
        """Does nothing: `report` is always up to date."""

    async def submit(
        self, info: ModelInfo, parameters: GenerationParameters, origin: RequestOrigin
    ) -> GenerationHandle:
        return self._engine.submit(
            info,
            parameters,
            client=origin.client,
            deadline=origin.deadline,
            generation_id=origin.generation_id,
        )

    async def load(self, info: ModelInfo) -> None:
        await self._engine.load(info)

    async def unload(self, name: str) -> None:
        await self._engine.unload(name)
