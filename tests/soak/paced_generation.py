"""The generation service with the sketch model alone, which here takes time for each step, as models do, and lets
earlier music be edited: `python -m tests.soak.paced_generation`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from dgx_music.errors import ServiceError
from generation_service.config import GenerationSettings
from generation_service.models.base import Capability, FloatArray, ModelInfo
from generation_service.models.catalog import BuiltInModel, ModelCatalog
from generation_service.models.sketch import Sketch
from generation_service.models.sketch.synthesizer import INFO, SketchState
from generation_service.rpc.server import build
from service_runtime.rpc.process import run_process

STEP_SECONDS = 0.05
"""Of each step, however many sequences are in the batch; it is 256 ms of music."""
PACED_INFO = replace(INFO, capabilities=frozenset({Capability.CONTINUATION}))


class PacedSketch(Sketch):
    """It continues music by other music."""

    @property
    def info(self) -> ModelInfo:
        return PACED_INFO

    def step(self, states: Sequence[SketchState]) -> list[FloatArray | ServiceError]:
        time.sleep(STEP_SECONDS)
        return super().step(states)


if __name__ == "__main__":
    catalog = ModelCatalog(lambda: [BuiltInModel(PACED_INFO, PacedSketch)])
    run_process(GenerationSettings, "generation_address", partial(build, catalog=catalog))
