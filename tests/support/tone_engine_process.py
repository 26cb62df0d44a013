"""The main program of an engine process that runs the tone model, and `Fifo`, with which a test holds its steps.

A request with the prompt "hold:PATH" blocks in its third step until the test releases the FIFO at PATH, one with
"work:PATH" does so at a reported progress of a quarter, "hang" blocks for ever, and "large" does not fit. In its third
step, "lose" loses the device, "raise" fails, and "memory" runs out of memory.
"""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from generation_service.config import GenerationSettings
from generation_service.engine import engine as engine_module
from generation_service.models.base import GenerationParameters, TooLarge
from generation_service.models.catalog import BuiltInModel, ModelCatalog
from generation_service.models.execution import KernelChoice, ModelExecution
from generation_service.models.sketch import Sketch
from generation_service.processes.engine_host import run_host
from tests.support.tone_model import ToneModel, ToneState, fail_with

MODULE = "tests.support.tone_engine_process"
HOLD, WORK = "hold:", "work:"
FAILURES = {
    "lose": RuntimeError("CUDA error: an illegal memory access was encountered"),
    "raise": ValueError("a string broke"),
    "memory": RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
}
"""Prompt → the error in its third step."""
HANG_SECONDS = 0.2
"""A model call that takes longer counts as hung, from a request to hang on."""
EXECUTION = ModelExecution("cpu", "fp32", "fp32", 8, 0.5, 0.25, (KernelChoice("attention", "torch", {"torch": 12.5}),))


class Fifo:
    """Blocks the step of an engine process that reads it."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._held: int | None = None

    @property
    def prompt(self) -> str:
        return f"{HOLD}{self.path}"

    async def reached(self) -> None:
        """Waits until the process has reached the step, and holds it there until `release`."""
        self._held = await asyncio.to_thread(os.open, self.path, os.O_WRONLY)

    async def release(self) -> None:
        """Waits until the process has reached the step, and lets it go on."""
        await asyncio.to_thread(self.path.write_bytes, b"x")
        if self._held is not None:
            os.close(self._held)
            self._held = None


@dataclass
class WorkState(ToneState):
    """A state that reports progress."""

    progress: float = 0.25


class ProcessToneModel(ToneModel):
    """A tone model that obeys the prompts."""

    def __init__(self) -> None:
        super().__init__()
        self._held: set[str] = set()
        """Prompts that have been held. A request that is generated again, since its batch has failed, is not."""

    def execution(self) -> ModelExecution:
        return EXECUTION

    def prefill(self, parameters: GenerationParameters) -> ToneState:
        prompt = parameters.prompt
        if prompt.startswith(HOLD):
            self.at[prompt, 3] = partial(self._hold_once, prompt)
        elif prompt.startswith(WORK):
            self.at[prompt, 3] = partial(Path(prompt.removeprefix(WORK)).read_bytes)
            super().prefill(parameters)
            return WorkState(parameters)
        elif prompt == "hang":
            engine_module.MODEL_CALL_TIMEOUT_SECONDS = HANG_SECONDS
            self.at[prompt, 3] = lambda: threading.Event().wait()
        elif prompt in FAILURES:
            self.at[prompt, 3] = fail_with(FAILURES[prompt])
        elif prompt == "large":
            raise TooLarge("duration_seconds", "ask for at most 12 s")
        return super().prefill(parameters)

    def _hold_once(self, prompt: str) -> None:
        self.at.pop((prompt, 3), None)
        if prompt not in self._held:
            self._held.add(prompt)
            Path(prompt.removeprefix(HOLD)).read_bytes()


def build_catalog(settings: GenerationSettings | None = None, memory_gb_per_second: float = 0.0) -> ModelCatalog:
    model = ProcessToneModel()
    return ModelCatalog(lambda: [model.entry, BuiltInModel(Sketch().info, Sketch)])


if __name__ == "__main__":
    run_host(build_catalog)
