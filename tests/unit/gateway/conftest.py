"""The whole house in this process, on a Unix socket; and what is behind the gateway, to meddle with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from dgx_music import channel
from dgx_music.client import connect
from dgx_music.export.v1.export_pb2_grpc import ExportServiceStub
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from gateway.embedded.ownership import Owner, acquire_or_join
from gateway.embedded.service_set import ALL, LIBRARY, ServiceSet
from gateway.embedded.services import run_embedded_services

if TYPE_CHECKING:
    from dgx_music.export.v1.export_pb2_grpc import ExportServiceAsyncStub
    from dgx_music.gateway.v1.gateway_pb2_grpc import MusicServiceAsyncStub
    from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceAsyncStub


class House(NamedTuple):
    """The gateway, and the services behind it."""

    music: MusicServiceAsyncStub
    storage: StorageServiceAsyncStub
    export: ExportServiceAsyncStub
    address: str


async def _living_in(data_dir: Path, needs: ServiceSet) -> AsyncIterator[House]:
    with acquire_or_join(data_dir) as owner:
        assert isinstance(owner, Owner)
        async with (
            run_embedded_services(owner, data_dir, service_set=needs),
            connect(owner.address) as music,
            channel.connect(owner.address) as behind,
        ):
            yield House(music, StorageServiceStub(behind), ExportServiceStub(behind), owner.address)


@pytest.fixture(autouse=True)
def nobodys_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those in the cache of whoever runs the tests."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[House]:
    """All services: what is created is made at once."""
    async for one in _living_in(tmp_path, ALL):
        yield one


@pytest.fixture
async def idle(tmp_path: Path) -> AsyncIterator[House]:
    """No generation: the test itself is the worker that claims and makes."""
    async for one in _living_in(tmp_path, LIBRARY):
        yield one
