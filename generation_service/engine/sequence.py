"""One request on its way through the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol

from dgx_music.errors import ServiceError
from generation_service.models.base import FloatArray, GenerationParameters, MetadataValue, ModelInfo


class Stage(Enum):
    """What the engine is doing for a request."""

    QUEUED = auto()
    """It waits for a place in the batch."""
    LOADING_MODEL = auto()
    ENCODING_PROMPT = auto()
    """The model's prefill."""
    GENERATING = auto()
    """In the batch; stays so after the last step."""


class Sink(Protocol):
    """Where a request's results go. The device thread posts these calls to the event loop, in order."""

    def on_started(self, metadata: Mapping[str, MetadataValue]) -> None:
        """Prefill is done."""

    def on_block(self, block: FloatArray) -> None:
        """The next frames, float32 [n, channels], n at least 1."""

    def on_finished(self, error: ServiceError | None) -> None:
        """Nothing comes any more: all frames came, or `error` says why not."""


@dataclass(eq=False, slots=True)
class Sequence:
    """One request, waiting or running.

    `buffered` and `cancelled` are shared with the event loop, under the engine's lock; all else that changes is the
    device thread's alone. Counts are frames.
    """

    info: ModelInfo
    parameters: GenerationParameters
    buffer_frames: int
    """Paused (not stepped) while at least this much waits for its reader."""
    sink: Sink = field(repr=False)
    stage: Stage = Stage.QUEUED
    state: Any = field(default=None, repr=False)
    """The model's state; None before prefill and after release."""
    steps: int = 0
    empty_steps: int = 0
    """Steps in a row that gave no frame."""
    made: int = 0
    """Frames the present state has made."""
    delivered: int = 0
    """Frames handed to the sink. More than `made` while a replay catches up."""
    buffered: int = 0
    """Frames handed over that the reader has not taken."""
    cancelled: bool = False
    alone: bool = False
    """Stepped in a batch of its own, since a batch that it was in failed."""

    @property
    def is_ready(self) -> bool:
        """Whether a step may be taken: its reader has room."""
        return self.state is not None and not self.cancelled and self.buffered < self.buffer_frames

    @property
    def seconds_left(self) -> float:
        """Seconds of audio still to be made."""
        return (self.parameters.frames - self.delivered) / self.info.sample_rate_hz
