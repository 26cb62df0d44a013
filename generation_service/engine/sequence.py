"""One request on its way through the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol

from dgx_music.errors import ServiceError
from generation_service.models.base import FloatArray, GenerationParameters, MetadataValue, ModelInfo, Section


class Stage(Enum):
    """What the engine is doing for a request."""

    QUEUED = auto()
    """The request is waiting to be admitted into the batch."""
    LOADING_MODEL = auto()
    ENCODING_PROMPT = auto()
    """The model's prefill is running."""
    GENERATING = auto()
    """The request is in the batch. The stage does not change after the last step."""


class ResultSink(Protocol):
    """Receives a request's results. The device thread schedules these calls on the event loop, in order."""

    def on_started(self, metadata: Mapping[str, MetadataValue], sections: tuple[Section, ...]) -> None:
        """Called when prefill is done."""

    def on_block(self, block: FloatArray) -> None:
        """Called with the next frames, float32 [n, channels], n ≥ 1."""

    def on_finished(self, error: ServiceError | None) -> None:
        """Called once, last: with None if all frames were delivered, else with the error that ended the request."""


@dataclass(eq=False, slots=True)
class Sequence:
    """A request that is waiting or running, and its state.

    `frames_buffered` and `is_cancelled` are shared with the event loop and guarded by the engine's lock; every other
    field that changes belongs to the device thread.
    """

    info: ModelInfo
    parameters: GenerationParameters
    max_buffered_frames: int
    """The sequence is paused (not stepped) while at least this many frames wait for the reader."""
    sink: ResultSink = field(repr=False)
    stage: Stage = Stage.QUEUED
    state: Any = field(default=None, repr=False)
    """The model's state; None before prefill and after release."""
    steps: int = 0
    empty_steps: int = 0
    """Number of consecutive steps, up to now, that yielded no frame."""
    frames_produced: int = 0
    """Frames produced by the current model state."""
    frames_delivered: int = 0
    """Frames passed to the sink. Exceeds `frames_produced` while a replay catches up."""
    frames_buffered: int = 0
    """Frames delivered that the reader has not consumed yet."""
    is_cancelled: bool = False
    is_solo: bool = False
    """Stepped in a batch of its own, because a shared batch that contained it failed."""

    @property
    def is_ready(self) -> bool:
        """Whether the sequence can be stepped: it is prefilled, not cancelled, and its reader's buffer has room."""
        return self.state is not None and not self.is_cancelled and self.frames_buffered < self.max_buffered_frames

    @property
    def seconds_remaining(self) -> float:
        """Seconds of audio still to be generated."""
        return (self.parameters.frames - self.frames_delivered) / self.info.sample_rate_hz
