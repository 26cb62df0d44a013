"""`ToneModel`: a tiny model that generates a sine, each step of which a test can block (`Gate`) or fail, and a clock
that a test moves (`ManualClock`)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from dgx_music.errors import ServiceError
from generation_service.models.base import Capability, FloatArray, GenerationParameters, ModelInfo, Section
from generation_service.models.catalog import BuiltInModel

RATE_HZ = 8000
BLOCK_FRAMES = 800
WAIT_SECONDS = 30.0


class Gate:
    """Blocks the device thread inside a model call until the test opens it."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._opened = threading.Event()

    def __call__(self) -> None:
        self._reached.set()
        assert self._opened.wait(WAIT_SECONDS)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, WAIT_SECONDS)

    def open(self) -> None:
        self._opened.set()


def fail_with(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


class ManualClock:
    """A clock that shows what the test has set."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> Callable[[], None]:
        """Returns a function that moves the clock on."""

        def advance() -> None:
            self.now += seconds

        return advance


@dataclass
class ToneState:
    parameters: GenerationParameters
    position: int = 0
    steps: int = 0
    metadata: dict[str, str | float | int] = field(default_factory=dict)
    sections: Sequence[Section] = ()


class ToneModel:
    """Generates a sine whose frequency is the seed in Hz. A test can hook into each step of each prompt."""

    def __init__(self, name: str = "tone") -> None:
        self.info = ModelInfo(
            name, "7", "A sine.", "CC0-1.0", RATE_HZ, 2, 3600.0, True, frozenset({Capability.CONTINUATION})
        )
        self.metadata: dict[str, str | float | int] = {"bpm": 120.0, "key": "A minor"}
        self.sections: Sequence[Section] = ()
        self.at: dict[tuple[str, int], Callable[[], None]] = {}
        """(prompt, step) → the function called at that step; step 0 is prefill. ("load", n) is the n-th load."""
        self.shapes: dict[str, Callable[[FloatArray], FloatArray | ServiceError]] = {}
        """prompt → the function applied to each of its blocks."""
        self.batches: list[list[str]] = []
        """The prompts of each step's batch."""
        self.prefilled: list[str] = []
        self.received: list[GenerationParameters] = []
        """The parameters of each prefill."""
        self.released: list[str] = []
        self._has_released = threading.Condition()
        self.loads = 0

    def load(self) -> ToneModel:
        self.loads += 1
        self.at.get(("load", self.loads), lambda: None)()
        return self

    @property
    def entry(self) -> BuiltInModel:
        return BuiltInModel(self.info, self.load)

    def prefill(self, parameters: GenerationParameters) -> ToneState:
        self.prefilled.append(parameters.prompt)
        self.received.append(parameters)
        self.at.get((parameters.prompt, 0), lambda: None)()
        return ToneState(parameters, metadata=self.metadata, sections=self.sections)

    def step(self, states: Sequence[ToneState]) -> list[FloatArray | ServiceError]:
        self.batches.append([state.parameters.prompt for state in states])
        blocks: list[FloatArray | ServiceError] = []
        for state in states:
            state.steps += 1
            self.at.get((state.parameters.prompt, state.steps), lambda: None)()
            frames = min(BLOCK_FRAMES, state.parameters.frames - state.position)
            block = tone(state.parameters, state.position, frames)
            state.position += frames
            blocks.append(self.shapes.get(state.parameters.prompt, lambda block: block)(block))
        return blocks

    def release(self, state: ToneState) -> None:
        self.released.append(state.parameters.prompt)
        with self._has_released:
            self._has_released.notify_all()

    async def release_of(self, prompt: str) -> None:
        """Waits until a state of this prompt has been released."""

        def wait() -> bool:
            with self._has_released:
                return self._has_released.wait_for(lambda: prompt in self.released, WAIT_SECONDS)

        assert await asyncio.to_thread(wait)


class ResumingToneModel(ToneModel):
    """A tone model that goes on from checkpoints: in its first step it yields all that it has yielded before."""

    def __init__(self, name: str = "tone") -> None:
        super().__init__(name)
        self.resumed_from: list[int] = []
        """The frame from which each prefill goes on."""

    def prefill(self, parameters: GenerationParameters) -> ToneState:
        self.resumed_from.append(int.from_bytes(parameters.checkpoint, "little"))
        return super().prefill(parameters)

    def step(self, states: Sequence[ToneState]) -> list[FloatArray | ServiceError]:
        blocks = super().step(states)
        for index, state in enumerate(states):
            known = int.from_bytes(state.parameters.checkpoint, "little")
            if state.position < known and isinstance(block := blocks[index], np.ndarray):
                blocks[index] = np.concatenate([block, tone(state.parameters, state.position, known - state.position)])
                state.position = known
        return blocks

    def save_checkpoint(self, state: ToneState) -> bytes:
        return state.position.to_bytes(8, "little")


class PromptToneModel(ToneModel):
    """A tone model whose prompts are encoded ahead. A test can hook into the encoding of each prompt."""

    def __init__(self, name: str = "tone", prompt_batch_size: int = 16) -> None:
        super().__init__(name)
        self.prompt_batch_size = prompt_batch_size
        self.encoded: list[list[str]] = []
        """The prompts of each call."""
        self.at_encoding: dict[str, Callable[[], None]] = {}

    def encode_prompts(self, requests: Sequence[GenerationParameters]) -> None:
        prompts = [parameters.prompt for parameters in requests]
        self.encoded.append(prompts)
        for prompt in prompts:
            self.at_encoding.get(prompt, lambda: None)()


def tone(parameters: GenerationParameters, position: int = 0, frames: int | None = None) -> FloatArray:
    """Returns the samples that the model generates: float32 [frames, 2], from `position` on."""
    n = np.arange(position, position + (parameters.frames if frames is None else frames))
    wave = 0.5 * np.sin(2 * np.pi * parameters.seed * n / RATE_HZ)
    return np.stack([wave, -wave], axis=1).astype(np.float32)


def tone_parameters(prompt: str, blocks: float = 4, seed: int = 440) -> GenerationParameters:
    """Returns parameters for `blocks` blocks of audio."""
    return GenerationParameters(prompt=prompt, frames=round(blocks * BLOCK_FRAMES), seed=seed)
