"""Fixtures for storage, export and generation services on a data directory of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.service_stack import ServiceStack
from tests.support.tone_model import ToneModel


@pytest.fixture
def model() -> ToneModel:
    return ToneModel()


@pytest.fixture
async def stack(tmp_path) -> AsyncIterator[ServiceStack]:
    """No server is running yet."""
    stack = ServiceStack(tmp_path)
    try:
        yield stack
    finally:
        await stack.stop_all()


@pytest.fixture
async def services(stack) -> ServiceStack:
    """All three servers are running."""
    await stack.start("storage", "export", "generation")
    return stack
