"""One request on its way through the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol

from dgx_music.errors import ServiceError
from generation_service.engine.timings import Timings
from generation_service.models.base import FloatArray, GenerationParameters, MetadataValue, ModelInfo, Section


class Stage(Enum):
    """What the engine is doing for a request."""

    QUEUED = auto()
    """The request is waiting to be admitted into the batch."""
    LOADING_MODEL = auto()
    ENCODING_PROMPT = auto()
    """The prompt is being encoded, or the model's prefill is running."""
    GENERATING = auto()
    """The request is in the batch. The stage does not change after the last step."""


class PromptState(Enum):
    """Whether a waiting request's prompt is encoded."""

    UNKNOWN = auto()
    """The model is not loaded. The request can be admitted, which loads it."""
    WAITING = auto()
    """The prompt thread will encode it."""
    ENCODING = auto()
    READY = auto()
    """The request can be admitted: its prompt is encoded, or is left to `prefill`."""


class ResultSink(Protocol):
    """Receives a request's results. The engine's threads schedule these calls on the event loop, in order."""

    def on_started(self, metadata: Mapping[str, MetadataValue], sections: tuple[Section, ...]) -> None:
        """Called when prefill is done."""

    def on_block(self, block: FloatArray) -> None:
        """Called with the next frames, float32 [n, channels], n ≥ 1."""

    def on_finished(self, error: ServiceError | None) -> None:
        """Called once, last: with None if all frames were delivered, else with the error that ended the request."""


@dataclass(eq=False, slots=True)
class Sequence:
    """A request that is waiting or running, and its state.

    `frames_buffered`, `is_cancelled`, `is_suspending` and, while the request waits, `prompt` are shared by threads and
    guarded by the engine's lock; every other field that changes belongs to the device thread.
    """

    info: ModelInfo
    parameters: GenerationParameters
    max_buffered_frames: int
    """The sequence is paused (not stepped) while at least this many frames wait for the reader."""
    sink: ResultSink = field(repr=False)
    client: str = ""
    """Who submitted the request. Waiting clients are served in turn."""
    weight: float = 1.0
    """The client's share of what is generated, in relation to others."""
    deadline: float | None = None
    """When all audio must have been generated, by the engine's clock; None if there is no deadline."""
    timings: Timings = field(default_factory=Timings, repr=False)
    log_fields: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What the log lines about the request carry, e.g. its generation."""
    stage: Stage = Stage.QUEUED
    prompt: PromptState = PromptState.READY
    state: Any = field(default=None, repr=False)
    """The model's state; None before prefill and after release."""
    steps: int = 0
    empty_steps: int = 0
    """Number of consecutive steps, up to now, that yielded neither a frame nor progress."""
    silent_seconds: float = 0.0
    """Duration of the steps since the last frame."""
    model_progress: float | None = None
    """The progress of the current model state, 0 to 1; None if it reports none."""
    frames_produced: int = 0
    """Frames produced by the current model state."""
    frames_delivered: int = 0
    """Frames passed to the sink. Exceeds `frames_produced` while a replay catches up."""
    frames_buffered: int = 0
    """Frames delivered that the reader has not consumed yet."""
    is_waiting: bool = False
    is_cancelled: bool = False
    is_suspending: bool = False
    """Whether it is to leave the queue or the batch with a checkpoint."""
    is_resumed: bool = False
    """Whether its model goes on from a checkpoint."""
    times_overtaken: int = 0
    """How many requests were admitted before this one while it waited for memory."""
    group: int = 0
    """Sequences of one model are stepped in one batch if their group is the same. 0 is everybody's; others hold parts
    of a batch that has failed."""
    failures: int = 0
    """How often a batch that contained the sequence has failed."""
    rejoin_at_step: int = 0
    """The step after which a sequence of another group returns to group 0."""

    @property
    def is_ready(self) -> bool:
        """Whether the sequence can be stepped: it is prefilled, not cancelled, and its reader's buffer has room."""
        return self.state is not None and not self.is_cancelled and self.frames_buffered < self.max_buffered_frames

    @property
    def progress(self) -> float:
        """The fraction of the work that is done, 0 to 1: what the model reports, or else that of the frames."""
        delivered = self.frames_delivered / self.parameters.frames
        return delivered if self.model_progress is None else self.model_progress

    @property
    def audio_seconds(self) -> float:
        """Seconds of audio requested."""
        return self.parameters.frames / self.info.sample_rate_hz

    @property
    def cost(self) -> float:
        """What it costs its client in a fair queue: its seconds of audio, by the client's weight."""
        return self.audio_seconds / self.weight

    @property
    def seconds_remaining(self) -> float:
        """Seconds of audio still to be generated."""
        return (self.parameters.frames - self.frames_delivered) / self.info.sample_rate_hz

    @property
    def context_frames(self) -> int:
        """Frames that the model works on: those to generate and those of the audio to continue."""
        clip = self.parameters.prompt_audio
        return self.parameters.frames + (0 if clip is None else len(clip))
