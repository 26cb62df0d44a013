"""A generation server whose model takes a fixed time for each step and computes next to nothing, as if on a GPU.

python -m tests.support.paced_server
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np

from dgx_music.errors import ServiceError
from generation_service.config import GenerationSettings
from generation_service.models.base import FloatArray, GenerationParameters, ModelInfo
from generation_service.models.catalog import BuiltInModel, ModelCatalog
from generation_service.rpc.server import build
from service_runtime.observability.logging import configure_logging
from service_runtime.rpc.server import serve_until_signalled
from tests.support.tone_model import ToneState

RATE_HZ = 32_000
STEP_SECONDS = 0.1
"""Of each step, however many sequences are in the batch."""
BLOCK_FRAMES = RATE_HZ // 2
"""Five times as fast as the music plays."""


class PacedModel:
    """Generates noise that depends on the seed."""

    info = ModelInfo("paced", "1", "Noise.", "CC0-1.0", RATE_HZ, 2, 3600.0, True)

    def prefill(self, parameters: GenerationParameters) -> ToneState:
        return ToneState(parameters)

    def step(self, states: Sequence[ToneState]) -> list[FloatArray | ServiceError]:
        ends_at = time.monotonic() + STEP_SECONDS
        blocks: list[FloatArray | ServiceError] = []
        for state in states:
            random = np.random.default_rng([state.parameters.seed, state.position])
            frames = min(BLOCK_FRAMES, state.parameters.frames - state.position)
            blocks.append(random.random((frames, 2), np.float32) / 4)
            state.position += frames
        time.sleep(max(0.0, ends_at - time.monotonic()))
        return blocks

    def release(self, state: ToneState) -> None:
        """Holds nothing."""


def main() -> None:
    settings = GenerationSettings()
    configure_logging(settings.log_level, settings.log_format)
    service = build(settings, catalog=ModelCatalog(lambda: [BuiltInModel(PacedModel.info, PacedModel)]))
    asyncio.run(serve_until_signalled([service], settings.generation_address, settings))


if __name__ == "__main__":
    main()
