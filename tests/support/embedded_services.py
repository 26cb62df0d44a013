"""All services, or some of them, in the test's own process behind one Unix socket, and stubs for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dgx_music import channel
from dgx_music.client import connect
from dgx_music.export.v1.export_pb2_grpc import ExportServiceStub
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from gateway.embedded.ownership import Owner, enter
from gateway.embedded.service_set import Needs
from gateway.embedded.services import house

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


@asynccontextmanager
async def living_in(data_dir: Path, needs: Needs) -> AsyncIterator[House]:
    with enter(data_dir) as owner:
        assert isinstance(owner, Owner)
        async with (
            house(owner, data_dir, names=needs),
            connect(owner.address) as music,
            channel.connect(owner.address) as behind,
        ):
            yield House(music, StorageServiceStub(behind), ExportServiceStub(behind), owner.address)
