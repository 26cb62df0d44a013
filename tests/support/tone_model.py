"""A real, tiny model whose every step a test can hold or break."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from generation_service.models.base import FloatArray, GenerationParameters, ModelInfo
from generation_service.models.catalog import KnownModel

RATE_HZ = 8000
BLOCK_FRAMES = 800
WAIT_SECONDS = 30.0


class Gate:
    """Holds the device thread inside a step until the test opens it."""

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


@dataclass
class ToneState:
    parameters: GenerationParameters
    position: int = 0
    steps: int = 0
    metadata: dict[str, str | float | int] = field(default_factory=lambda: {"bpm": 120.0, "key": "A minor"})


class ToneModel:
    """A sine whose pitch is the seed in Hz. What happens at a step of a prompt's sequence is up to the test."""

    def __init__(self, name: str = "tone") -> None:
        self.info = ModelInfo(name, "7", "A sine.", "CC0-1.0", RATE_HZ, 2, 3600.0, True, can_continue=True)
        self.at: dict[tuple[str, int], Callable[[], None]] = {}
        """(prompt, step from 1; 0 is prefill) → what is called there."""
        self.shapes: dict[str, Callable[[FloatArray], FloatArray]] = {}
        """prompt → what becomes of each of its blocks."""
        self.batches: list[list[str]] = []
        """The prompts of each step."""
        self.prefilled: list[str] = []
        self.asked: list[GenerationParameters] = []
        self.released: list[str] = []
        self._has_released = threading.Condition()
        self.loads = 0

    def load(self) -> ToneModel:
        self.loads += 1
        self.at.get(("load", self.loads), lambda: None)()
        return self

    @property
    def entry(self) -> KnownModel:
        return KnownModel(self.info, self.load)

    def prefill(self, parameters: GenerationParameters) -> ToneState:
        self.prefilled.append(parameters.prompt)
        self.asked.append(parameters)
        self.at.get((parameters.prompt, 0), lambda: None)()
        return ToneState(parameters)

    def step(self, states: Sequence[ToneState]) -> list[FloatArray]:
        self.batches.append([state.parameters.prompt for state in states])
        blocks = []
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
        """Returns when a state of that prompt has been released."""

        def wait() -> bool:
            with self._has_released:
                return self._has_released.wait_for(lambda: prompt in self.released, WAIT_SECONDS)

        assert await asyncio.to_thread(wait)


def tone(parameters: GenerationParameters, position: int = 0, frames: int | None = None) -> FloatArray:
    """What the model makes of it: [frames, 2] from that position on."""
    n = np.arange(position, position + (parameters.frames if frames is None else frames))
    wave = 0.5 * np.sin(2 * np.pi * parameters.seed * n / RATE_HZ)
    return np.stack([wave, -wave], axis=1).astype(np.float32)


def ask(prompt: str, blocks: float = 4, seed: int = 440) -> GenerationParameters:
    return GenerationParameters(prompt=prompt, frames=round(blocks * BLOCK_FRAMES), seed=seed)
