"""What the service needs of an engine, whether it runs in this process or in one of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from generation_service.engine.engine_status import EngineStatus
from generation_service.engine.request_handle import GenerationHandle
from generation_service.hardware.devices import Device
from generation_service.models.base import GenerationParameters, ModelInfo
from generation_service.models.execution import ModelExecution

ENGINE_LOST = "ENGINE_LOST"
"""The reason of the Unavailable with which a request ends if the process of its engine does."""
ENGINE_UNAVAILABLE = "ENGINE_UNAVAILABLE"
"""The reason of the Unavailable with which a request is rejected if no engine accepts requests."""


@dataclass(frozen=True, slots=True)
class RequestOrigin:
    """Where a request comes from, and by when its audio is needed."""

    generation_id: str = ""
    """UUID of the generation; empty for one that is in no database."""
    client: str = ""
    """Who has submitted it. Waiting clients are served in turn."""
    weight: float = 1.0
    """The client's share of what is generated, in relation to others."""
    deadline: float | None = None
    """When all audio must have been generated, by the monotonic clock, which all processes of a machine share; None if
    there is no deadline."""


class EngineState(Enum):
    """The state of an engine."""

    STARTING = auto()
    """Its process is starting, or loads the model to preload."""
    SERVING = auto()
    FAILED = auto()
    """Its process has ended and will be replaced, its device thread has ended, it does not respond, or the model to
    preload could not be loaded."""


@dataclass(frozen=True, slots=True)
class EngineReport:
    """The state of an engine, and the last status that it reported."""

    device: Device
    state: EngineState
    problem: str
    """Why it does not accept requests; empty if it does."""
    restarts: int
    """How often its process has been replaced."""
    status: EngineStatus
    models: Mapping[ModelInfo, ModelExecution | None]
    """The loaded models."""
    pid: int | None = None
    """Its process, if it has one of its own and that is running."""


class EngineClient(Protocol):
    """An engine on one device. All methods are called on the event loop."""

    device: Device
    max_batch_size: int
    on_capacity_changed: Callable[[], None]
    """Called when `capacity` has changed."""

    @property
    def capacity(self) -> int:
        """How many requests fit into its batch; 0 while its process is not ready."""
        ...

    async def start(self) -> None:
        """Starts the engine. Returns before it is ready."""

    async def stop(self) -> None:
        """Ends the engine. Unfinished requests fail with Unavailable."""

    def check(self) -> None:
        """Raises Unavailable if the engine does not accept requests; UnrecoverableError if it never will again in this
        process."""

    def report(self) -> EngineReport:
        """Returns what is known of the engine. May be called from any thread."""
        ...

    def models(self) -> Mapping[ModelInfo, ModelExecution | None]:
        """Returns the loaded models as in `report`, without the rest of it, for which an engine waits for its lock."""
        ...

    async def refresh(self) -> None:
        """Brings `report` up to date, if the engine responds soon."""

    async def submit(
        self, info: ModelInfo, parameters: GenerationParameters, origin: RequestOrigin
    ) -> GenerationHandle:
        """Queues a request. Raises like `Engine.submit`."""
        ...

    async def load(self, info: ModelInfo) -> None:
        """Loads a model into memory. Raises whatever loading it raises."""

    async def unload(self, name: str) -> None:
        """Removes a model from memory. Raises FailedPrecondition while requests use it."""
