"""What tests ask of an engine."""

from __future__ import annotations

import numpy as np

from generation_service.engine.engine import Engine
from generation_service.engine.request_handle import GenerationHandle
from generation_service.models.base import FloatArray, GenerationParameters
from tests.support.tone_model import ask


async def read(handle: GenerationHandle) -> FloatArray:
    return np.concatenate([block async for block in handle])


def submit(engine: Engine, name: str, parameters: GenerationParameters) -> GenerationHandle:
    return engine.submit(engine.catalog.get(name).describe(), parameters)


async def idle(engine: Engine) -> None:
    """Returns when a request submitted now has come through: everything before it has been dealt with."""
    await read(submit(engine, "", ask("last", 1)))
