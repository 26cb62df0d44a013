"""Helpers that submit requests to an engine and read their audio."""

from __future__ import annotations

import numpy as np

from generation_service.engine.engine import Engine
from generation_service.engine.request_handle import GenerationHandle
from generation_service.models.base import FloatArray, GenerationParameters
from tests.support.tone_model import tone_parameters


async def read(handle: GenerationHandle) -> FloatArray:
    """Returns all the samples of a request, float32 [n, channels]."""
    return np.concatenate([block async for block in handle])


def submit(engine: Engine, name: str, parameters: GenerationParameters) -> GenerationHandle:
    """Submits a request for the model of that name."""
    return engine.submit(engine.catalog.get(name).describe(), parameters)


async def idle(engine: Engine) -> None:
    """Waits until the engine has processed everything before now, by running a request through it."""
    await read(submit(engine, "", tone_parameters("last", 1)))
