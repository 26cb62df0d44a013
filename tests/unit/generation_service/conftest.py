"""Fixtures for engines that run the tone model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from generation_service.engine.engine import Engine
from generation_service.models.catalog import ModelCatalog
from tests.support.tone_model import ToneModel


@pytest.fixture
def model() -> ToneModel:
    return ToneModel()


StartEngine = Callable[..., Awaitable[Engine]]


@pytest.fixture
async def start_engine() -> AsyncIterator[StartEngine]:
    """Returns a function that starts an engine with the given models. The engine is stopped after the test."""
    async with AsyncExitStack() as stack:

        async def start(*models: ToneModel, **settings: Any) -> Engine:
            engine = Engine(ModelCatalog(lambda: [model.entry for model in models]), **settings)
            await engine.start()
            stack.push_async_callback(engine.stop)
            return engine

        yield start
