"""The one interface between the engine and whatever makes the music.

A model turns validated parameters into a *state* (``prefill``) and advances many states by one decode
step in one call (``step``). That is the shape of continuous batching: the engine decides who is in the
batch, the model only ever sees "these states, one step each". A rule-based synthesiser fits it as well
as an autoregressive transformer, which projects its text once in ``prefill`` and runs all rows of a
step as one batch on the device.

All calls come from the engine's one device thread; an implementation needs no locks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from dgx_music.errors import ResourceExhausted

FloatArray = npt.NDArray[np.float32]

MetadataValue = str | float | int

TOO_LARGE_RETRY_SECONDS = 60.0
"""How much memory there is for requests is found out when a model is loaded: only a server that was started anew, or
another one, takes what was too large for this."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is known of a model before it is asked for anything."""

    name: str
    version: str
    """Changes whenever the same parameters would give other samples."""
    description: str
    licence: str
    """SPDX identifier of what the output and the weights are under, e.g. ``CC-BY-NC-4.0``."""
    sample_rate_hz: int
    channels: int
    max_duration_seconds: float
    is_synthesiser: bool
    """True for a rule-based synthesiser without a neural network; shown to users wherever a model is."""
    can_continue: bool = False
    """It takes `GenerationParameters.prompt_audio`."""


@dataclass(frozen=True, slots=True)
class GenerationParameters:
    """What a model is asked for. Already validated: a model may rely on the ranges given here.

    The sampling parameters are those of a language model; one that does not sample ignores them.
    """

    prompt: str
    frames: int
    """Exact count of frames to produce, at least 1, at the model's own sample rate."""
    seed: int
    """0 … 2**63 - 1. Decides every random draw, whatever else shares the batch."""
    temperature: float = 1.0
    top_k: int = 250
    """0 samples from all tokens."""
    top_p: float = 0.0
    """0 turns nucleus sampling off and leaves ``top_k`` in charge."""
    guidance_scale: float = 3.0
    """Classifier-free guidance: 1 is none."""
    prompt_audio: FloatArray | None = None
    """What the music goes on from, [n, channels] at the model's rate and of its channels; not part of the output."""


class TooLarge(ResourceExhausted):
    """A request needs more memory than this server has for all of them. `field` is what asks for it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(
            f"{field}: {problem}",
            reason="KV_MEMORY",
            metadata={"field": field},
            field=field,
            retry_after_seconds=TOO_LARGE_RETRY_SECONDS,
        )


class SequenceState(Protocol):
    """One request's state inside a model: KV rows, decoder tails, a position. Opaque to the engine."""

    @property
    def metadata(self) -> Mapping[str, MetadataValue]:
        """What the model knows of the music it makes, from ``prefill`` on.

        For example ``{"bpm": 140.0, "key": "C minor", "genre": "trap"}``; empty where nothing is known.
        """
        ...


StateT = TypeVar("StateT", bound=SequenceState)


class Model(Protocol[StateT]):
    """Makes music for any number of sequences at once. ``Model[Any]`` is what an engine holds."""

    @property
    def info(self) -> ModelInfo:
        """Constant for the life of the model."""
        ...

    def prefill(self, parameters: GenerationParameters) -> StateT:
        """Do the work that a request needs once, and reserve what its steps will need.

        Raises an exception if this one request can't be served; other states stay valid. ResourceExhausted means that
        others hold what it needs: it is asked again when one of them has been released. TooLarge means that it would
        not fit into an idle model either.
        """
        ...

    def step(self, states: Sequence[StateT]) -> list[FloatArray]:
        """Advance each state by one decode step.

        Returns one array per state, in the order given: float32 ``[n, channels]``, nominally within
        ±1. ``n`` may be 0 (a step that yields no sound yet, or a finished sequence); over all steps it
        adds up to exactly ``parameters.frames``. A state's samples do not depend on its company.
        """
        ...

    def release(self, state: StateT) -> None:
        """Free the state's memory, after its last step or on cancel. The state is not used again."""
        ...
