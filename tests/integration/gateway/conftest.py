"""Embedded services for the tests of the gateway and of the command line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.embedded.service_set import ALL, LIBRARY
from tests.support.command_line import InProcessShell
from tests.support.embedded_services import EmbeddedServices, embedded_services


@pytest.fixture(autouse=True)
def no_installed_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the models in the Hugging Face cache of the user who runs the tests."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))


@pytest.fixture
async def all_services(tmp_path: Path) -> AsyncIterator[EmbeddedServices]:
    """All services: a created generation is generated at once."""
    async with embedded_services(tmp_path, ALL) as services:
        yield services


@pytest.fixture
async def library_services(tmp_path: Path) -> AsyncIterator[EmbeddedServices]:
    """Storage, export and gateway: the test itself acts as the worker."""
    async with embedded_services(tmp_path, LIBRARY) as services:
        yield services


@pytest.fixture
def shell(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> InProcessShell:
    """A command line on a new data directory."""
    return InProcessShell(tmp_path / "data", capfd)
