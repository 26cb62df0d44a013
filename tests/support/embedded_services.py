"""Runs services in the process of the test behind a Unix socket, and gives stubs for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dgx_music import channel
from dgx_music.client import connect
from dgx_music.export.v1.export_pb2_grpc import ExportServiceStub
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from gateway.embedded.ownership import Owner, acquire_or_join
from gateway.embedded.service_set import ALL, ServiceSet
from gateway.embedded.services import run_embedded_services

if TYPE_CHECKING:
    from dgx_music.export.v1.export_pb2_grpc import ExportServiceAsyncStub
    from dgx_music.gateway.v1.gateway_pb2_grpc import MusicServiceAsyncStub
    from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceAsyncStub


class EmbeddedServices(NamedTuple):
    """Stubs for the gateway and for the services behind it."""

    music: MusicServiceAsyncStub
    storage: StorageServiceAsyncStub
    export: ExportServiceAsyncStub
    address: str
    public_address: str = ""
    """Where the gateway alone is served, if that was asked for."""


@asynccontextmanager
async def embedded_services(
    data_dir: Path, names: ServiceSet = ALL, public_address: str | None = None, **settings: object
) -> AsyncIterator[EmbeddedServices]:
    """Runs the services while the block runs; this process owns the data directory."""
    with acquire_or_join(data_dir) as owner:
        assert isinstance(owner, Owner)
        async with (
            run_embedded_services(
                owner, data_dir, service_set=names, public_address=public_address, overrides=settings
            ) as bound,
            connect(owner.address) as music,
            channel.connect(owner.address) as behind,
        ):
            yield EmbeddedServices(
                music, StorageServiceStub(behind), ExportServiceStub(behind), owner.address, *bound[1:]
            )
