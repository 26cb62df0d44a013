"""What the service and an engine process say to each other. Both run the same version of this code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dgx_music.errors import ServiceError
from generation_service.engine.engine_status import EngineStatus
from generation_service.engine.failures import format_error
from generation_service.engine.sequence import Stage
from generation_service.engine.timings import Timings
from generation_service.models.base import FloatArray, GenerationParameters, MetadataValue, ModelInfo, Section
from generation_service.models.execution import ModelExecution
from generation_service.processes.engine_client import RequestOrigin


@dataclass(frozen=True, slots=True)
class ErrorData:
    """A ServiceError as data: an exception that takes arguments of its own can't be pickled."""

    class_name: str
    message: str
    reason: str
    metadata: Mapping[str, str]
    field: str | None
    retry_after_seconds: float | None

    @classmethod
    def of(cls, error: BaseException) -> ErrorData:
        """Returns the error as data. One that is no ServiceError becomes one."""
        if not isinstance(error, ServiceError):
            error = ServiceError(f"the engine failed: {format_error(error)}", reason="ENGINE_FAILED")
        return cls(
            type(error).__name__, error.message, error.reason, error.metadata, error.field, error.retry_after_seconds
        )

    def to_error(self) -> ServiceError:
        """Returns an error of the same class with the same contents."""
        error_class = next((found for found in _error_classes() if found.__name__ == self.class_name), ServiceError)
        error = error_class.__new__(error_class)
        ServiceError.__init__(
            error,
            self.message,
            reason=self.reason,
            metadata=self.metadata,
            field=self.field,
            retry_after_seconds=self.retry_after_seconds,
        )
        return error


def _error_classes(parent: type[ServiceError] = ServiceError) -> Iterator[type[ServiceError]]:
    yield parent
    for child in parent.__subclasses__():
        yield from _error_classes(child)


# From the service to the engine process.


@dataclass(frozen=True, slots=True)
class Configure:
    """The first message."""

    settings_json: str
    """The settings of the service, with `devices` and `max_batch_size` as they are for this engine."""
    device: str
    """The name of the device in the service, for logs."""
    preload: str | None
    memory_gb_per_second: float
    """The memory bandwidth of the service's slowest GPU; 0 if it is not known. It decides the precision `auto`."""
    log_level: str
    log_format: str


@dataclass(frozen=True, slots=True)
class Submit:
    """A request. Answered with Accepted, or else with Finished."""

    request_id: int
    model: str
    parameters: GenerationParameters
    origin: RequestOrigin
    log_fields: Mapping[str, Any]
    """What the log lines about the request carry."""


@dataclass(frozen=True, slots=True)
class Cancel:
    request_id: int


@dataclass(frozen=True, slots=True)
class Suspend:
    """Stop a request, and send its checkpoint with Finished."""

    request_id: int


@dataclass(frozen=True, slots=True)
class Consumed:
    """The reader of a request has taken this many frames."""

    request_id: int
    frames: int


@dataclass(frozen=True, slots=True)
class Load:
    """Answered with Answer."""

    call_id: int
    model: str


@dataclass(frozen=True, slots=True)
class Unload:
    """Answered with Answer."""

    call_id: int
    model: str


@dataclass(frozen=True, slots=True)
class Report:
    """Asks for a Snapshot now, and an Answer after it."""

    call_id: int


@dataclass(frozen=True, slots=True)
class Stop:
    """The last message: unfinished requests fail, and the process ends."""


# From the engine process to the service.


@dataclass(frozen=True, slots=True)
class Accepted:
    request_id: int


@dataclass(frozen=True, slots=True)
class Started:
    request_id: int
    metadata: Mapping[str, MetadataValue]
    sections: tuple[Section, ...]
    timings: Timings
    is_resumed: bool


@dataclass(frozen=True, slots=True)
class Block:
    request_id: int
    samples: FloatArray
    """[n, channels]"""


@dataclass(frozen=True, slots=True)
class Finished:
    """The last message about a request."""

    request_id: int
    error: ErrorData | None
    timings: Timings | None
    """None if the engine has not accepted the request."""
    checkpoint: bytes | None = None
    """That of a request that was suspended."""


@dataclass(frozen=True, slots=True)
class Answer:
    call_id: int
    error: ErrorData | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the engine. Sent at a change and twice a second: without it, the process counts as hung."""

    status: EngineStatus
    problem: ErrorData | None
    """What `Engine.check` raises."""
    models: Mapping[ModelInfo, ModelExecution | None]
    """The loaded models."""
    stages: Mapping[int, Stage]
    """Request → what the engine is doing for it."""
    progress: Mapping[int, float]
    """Request → the progress that its model reports, if it does."""
