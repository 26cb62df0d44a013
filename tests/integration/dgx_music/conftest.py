"""All services, for the tests of the Python client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from dgx_music import AsyncClient, Client
from tests.support.music_server import music_server


@pytest.fixture(autouse=True)
def _no_settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the config file of the user who runs the tests."""
    empty = tmp_path_factory.getbasetemp() / "empty.toml"
    empty.touch()
    monkeypatch.setenv("DGX_MUSIC_CONFIG", str(empty))


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that runs in a thread, for all tests."""
    with music_server(tmp_path_factory.mktemp("server")) as addresses:
        yield addresses[0]


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client


@pytest.fixture
async def async_client(address: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(address) as client:
        yield client
