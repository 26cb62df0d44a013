"""The engine that runs within the service's own process."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dgx_music.errors import Unavailable
from generation_service.engine.engine import Engine
from generation_service.engine.request_handle import GenerationHandle
from generation_service.hardware.devices import Device
from generation_service.models.base import GenerationParameters, ModelInfo
from generation_service.models.execution import ModelExecution
from generation_service.processes.engine_client import EngineReport, EngineState, RequestOrigin


class LocalEngine:
    """Implements `EngineClient`."""

    def __init__(self, device: Device, engine: Engine, *, max_batch_size: int) -> None:
        self.device = device
        self.max_batch_size = self.capacity = max_batch_size
        self.on_capacity_changed: Callable[[], None] = lambda: None
        self._engine = engine

    async def start(self) -> None:
        await self._engine.start()

    async def stop(self) -> None:
        await self._engine.stop()

    def check(self) -> None:
        self._engine.check()

    def report(self) -> EngineReport:
        state, problem = EngineState.SERVING, ""
        try:
            self._engine.check()
        except Unavailable as error:
            state = EngineState.STARTING if error.reason == "MODEL_LOADING" else EngineState.FAILED
            problem = error.message
        return EngineReport(self.device, state, problem, 0, self._engine.status(), self.models())

    def models(self) -> Mapping[ModelInfo, ModelExecution | None]:
        return self._engine.loaded_models()

    async def refresh(self) -> None:
        """Does nothing: `report` is always up to date."""

    async def submit(
        self, info: ModelInfo, parameters: GenerationParameters, origin: RequestOrigin
    ) -> GenerationHandle:
        return self._engine.submit(
            info,
            parameters,
            client=origin.client,
            weight=origin.weight,
            deadline=origin.deadline,
        )

    async def load(self, info: ModelInfo) -> None:
        await self._engine.load(info)

    async def unload(self, name: str) -> None:
        await self._engine.unload(name)
