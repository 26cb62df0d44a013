"""The whole house in this process, on a Unix socket; and what is behind the gateway, to meddle with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.embedded.service_set import ALL, LIBRARY
from tests.support.embedded_services import House, living_in


@pytest.fixture(autouse=True)
def nobodys_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those in the cache of whoever runs the tests."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[House]:
    """All services: what is created is made at once."""
    async with living_in(tmp_path, ALL) as one:
        yield one


@pytest.fixture
async def idle(tmp_path: Path) -> AsyncIterator[House]:
    """No generation: the test itself is the worker that claims and makes."""
    async with living_in(tmp_path, LIBRARY) as one:
        yield one
