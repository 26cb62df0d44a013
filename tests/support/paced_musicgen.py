"""The generation service with MusicGen, of which each step takes time, as those of a large model do:
`python -m tests.support.paced_musicgen serve generation`, and the main program of its engine processes."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial

from dgx_music.errors import ServiceError
from generation_service.config import GenerationSettings
from generation_service.models.base import FloatArray
from generation_service.models.discovery import find_installed_models
from generation_service.models.musicgen.model import MusicGen, MusicGenState
from generation_service.processes.engine_host import run_host
from generation_service.rpc.server import build
from service_runtime.rpc.process import run_process

MODULE = "tests.support.paced_musicgen"
STEP_SECONDS = 0.01
"""Of each step, which is 20 ms of music."""
_step = MusicGen.step


def step_slowly(model: MusicGen, states: Sequence[MusicGenState]) -> list[FloatArray | ServiceError]:
    time.sleep(STEP_SECONDS)
    return _step(model, states)


if __name__ == "__main__":
    MusicGen.step = step_slowly  # type: ignore[method-assign]
    if sys.argv[1] == "serve":
        run_process(GenerationSettings, "generation_address", partial(build, engine_module=MODULE))
    else:
        run_host(find_installed_models)
