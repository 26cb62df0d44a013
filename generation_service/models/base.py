"""The interface between the engine and a model.

A model turns validated parameters into a *state* (`prefill`) and advances many states by one decode step in one call
(`step`). This is the shape of continuous batching: the engine decides which requests are in the batch, and the model
only sees "these states, one step each". The interface suits a rule-based synthesiser as well as an autoregressive
transformer, which encodes its text once in `prefill` and runs all rows of a step as one batch on the device.

All calls but `encode_prompts` come from the engine's device thread, so an implementation needs few locks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from dgx_music.errors import ResourceExhausted, ServiceError
from service_runtime.capabilities import Capability as Capability

FloatArray = npt.NDArray[np.float32]

MetadataValue = str | float | int

TOO_LARGE_RETRY_SECONDS = 60.0
"""The memory for requests is measured when a model is loaded, so only a restarted server, or another one, can accept a
request that is too large for this one."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The properties of a model that are known without loading it."""

    name: str
    version: str
    """Changes whenever the same parameters would produce other samples."""
    description: str
    licence: str
    """SPDX identifier of the licence of the weights and of the output, e.g. `CC-BY-NC-4.0`."""
    sample_rate_hz: int
    channels: int
    max_duration_seconds: float
    is_synthesiser: bool
    """True for a rule-based synthesiser without a neural network. Shown to users wherever the model is named."""
    capabilities: frozenset[Capability] = frozenset()
    max_continuation_seconds: float | None = None
    """How much it generates after audio that it continues; None for `max_duration_seconds`."""
    default_guidance_scale: float = 3.0
    """The guidance scale of a request that names none."""
    default_temperature: float = 1.0
    default_top_k: int = 250
    default_top_p: float = 0.0
    knows_its_notes: bool = False
    """Whether it implements `KnowsItsNotes` and is loaded at once, anywhere."""
    makes_loops: bool = False
    """Whether it can be given a loop in `GenerationParameters`."""


@dataclass(frozen=True, slots=True)
class Section:
    """Consecutive frames of the music with one character, such as an intro or a chorus."""

    name: str
    start_frame: int
    end_frame: int
    """The frame after the last one."""


@dataclass(frozen=True, slots=True)
class WeightedPrompt:
    """A text and its weight, above 0."""

    prompt: str
    weight: float


@dataclass(frozen=True, slots=True)
class PromptSection:
    """Frames of the music that have a prompt of their own."""

    start_frame: int
    end_frame: int
    """The frame after the last one."""
    prompt: str


@dataclass(frozen=True, slots=True)
class StyleExcerpt:
    """Audio whose style to follow."""

    audio: FloatArray
    """[n, channels] at the model's sample rate and channel count."""
    quantizers: int = 0
    """0: the model's default."""
    text_guidance: float = 5.0
    """The inner scale of double classifier-free guidance."""


@dataclass(frozen=True, slots=True)
class AdapterUse:
    """An installed adapter and how strongly to apply it."""

    name: str
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class LoopShape:
    """Music whose end leads into its start."""

    beats: int
    """Quarter notes from its start to its end."""
    bpm: float
    """Quarter notes per minute."""


@dataclass(frozen=True, slots=True)
class GenerationParameters:
    """The parameters of a request. They are already validated: a model can rely on the ranges given here.

    The sampling parameters are those of a language model; a model that does not sample ignores them. What needs a
    capability that the model does not have is never set.
    """

    prompt: str
    frames: int
    """The exact number of frames to produce, at least 1, at the model's sample rate."""
    seed: int
    """0 … 2**63 - 1. Determines every random draw, whatever else is in the batch."""
    temperature: float = 1.0
    top_k: int = 250
    """0 samples from all tokens."""
    top_p: float = 0.0
    """0 disables nucleus sampling. It applies to the codes that `top_k` leaves."""
    guidance_scale: float = 3.0
    """The classifier-free guidance scale; 1 disables guidance."""
    prompt_audio: FloatArray | None = None
    """The audio to continue, [n, channels] at the model's sample rate and channel count."""
    kept_prompt_frames: int = 0
    """How many frames at the end of `prompt_audio` are generated once more: `frames` begins with them. At most half a
    second."""
    negative_prompt: str = ""
    """What the music is guided away from."""
    prompt_weight: float = 1.0
    """The weight of `prompt` beside `further_prompts`. Only ratios matter."""
    further_prompts: tuple[WeightedPrompt, ...] = ()
    sections: tuple[PromptSection, ...] = ()
    """In order and without overlap, counted in the output. Between them, `prompt` applies."""
    melody: FloatArray | None = None
    """The audio whose melody to follow, [n, channels] at the model's sample rate and channel count."""
    style: StyleExcerpt | None = None
    adapters: tuple[AdapterUse, ...] = ()
    lyrics: str = ""
    steps: int = 0
    """The number of denoising steps of a diffusion model; 0 for its default."""
    loop: LoopShape | None = None
    """What to play again and again: `frames` is its length. Only for models that make loops."""
    checkpoint: bytes = field(default=b"", repr=False)
    """What a model that `SavesCheckpoints` returned for the same request. The samples are the same with it, from the
    first on; only the time differs."""


class TooLarge(ResourceExhausted):
    """A request needs more memory than the server has for all requests together. `field` names the one to reduce."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(
            f"{field}: {problem}",
            reason="KV_MEMORY",
            metadata={"field": field},
            field=field,
            retry_after_seconds=TOO_LARGE_RETRY_SECONDS,
        )


class SequenceState(Protocol):
    """A model's state for one request: KV cache rows, decoder state, a position. Opaque to the engine."""

    @property
    def metadata(self) -> Mapping[str, MetadataValue]:
        """What the model knows about the music, from `prefill` on.

        For example `{"bpm": 140.0, "key": "C minor", "genre": "trap"}`; empty if nothing is known.
        """
        ...

    @property
    def sections(self) -> Sequence[Section]:
        """The sections of the music, from its first to its last frame, from `prefill` on; empty if not known."""
        ...


StateT = TypeVar("StateT", bound=SequenceState)


class Model(Protocol[StateT]):
    """Generates music for any number of sequences at once. The engine holds models as `Model[Any]`."""

    @property
    def info(self) -> ModelInfo:
        """The model's properties. They do not change."""
        ...

    def prefill(self, parameters: GenerationParameters) -> StateT:
        """Does the one-time work of a request and reserves the memory for its steps.

        Raises an exception if this request can't be served; other states stay valid. ResourceExhausted means that other
        requests hold the memory: the engine retries after one of them has been released. TooLarge means that the
        request would not fit even into an idle model.
        """
        ...

    def step(self, states: Sequence[StateT]) -> Sequence[FloatArray | ServiceError]:
        """Advances each state by one decode step.

        Returns one array per state, in the same order: float32 [n, channels], nominally within ±1. n may be 0 (a step
        that yields no audio yet, or a finished sequence); over all steps it adds up to exactly `parameters.frames`. A
        state's samples do not depend on the other states of the batch. The results may lag behind: a model may start a
        step before it has the results of the last one, and blocks only if nothing else can be done for these states.

        An error in place of an array fails that state alone; it must not be stepped again, and the others continue. If
        `step` raises instead, all states of the batch are lost: the engine restarts their requests in two halves.
        """
        ...

    def release(self, state: StateT) -> None:
        """Frees the state's memory, after its last step or when it is cancelled. The state is not used again."""
        ...


@runtime_checkable
class ReportsProgress(Protocol):
    """A state of a model that works for long before it has audio."""

    @property
    def progress(self) -> float:
        """The fraction of its work that is done, 0 to 1. A step that increases it is no sign of a hang, even if it
        yields no audio."""
        ...


@runtime_checkable
class SavesCheckpoints(Protocol):
    """A model whose requests can be stopped, and later go on from where they were, in this or another process."""

    def save_checkpoint(self, state: Any) -> bytes:
        """Returns what `prefill` needs in the request's parameters to go on; empty to start at the beginning. The next
        steps then yield the samples so far once more, in much less time than it took to generate them."""
        ...


@runtime_checkable
class QueuesPrefill(Protocol):
    """A model whose `prefill` may return before the device has done its work."""

    @property
    def prefill_seconds(self) -> float:
        """How long the device worked for a recent `prefill`; 0 if `prefill` itself takes as long."""
        ...


@runtime_checkable
class PromptEncoder(Protocol):
    """A model whose prompts, texts and clips, can be encoded ahead of their `prefill`, while others are stepped."""

    @property
    def prompt_batch_size(self) -> int:
        """How many requests to pass to `encode_prompts` at once, at most."""
        ...

    def encode_prompts(self, requests: Sequence[GenerationParameters]) -> None:
        """Encodes prompts; `prefill` then finds the results by content, and encodes what it does not find.

        Called from a thread of its own, though never while a model is loaded.
        """
        ...
