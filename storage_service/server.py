"""Storage as a service: its parts, put together."""

from __future__ import annotations

import asyncio

import grpc.aio
from sqlalchemy import text

from dgx_music.storage.v1 import storage_pb2, storage_pb2_grpc
from service_runtime.errors import Unavailable
from service_runtime.service import Service
from storage_service.config import StorageSettings
from storage_service.service import StorageServicer
from storage_service.store import Store
from storage_service.sweeper import sweep


class StorageServer:
    """The storage service. When it starts, gives a new database its schema and refuses one of another version."""

    full_name = storage_pb2.DESCRIPTOR.services_by_name["StorageService"].full_name

    def __init__(self, settings: StorageSettings) -> None:
        self._settings = settings
        self._store = Store(settings)
        self._sweeper: asyncio.Task[None] | None = None

    def add_to(self, server: grpc.aio.Server) -> None:
        servicer = StorageServicer(self._store, self._settings.max_attempts)
        storage_pb2_grpc.add_StorageServiceServicer_to_server(servicer, server)

    async def start(self) -> None:
        await self._store.open()
        self._sweeper = asyncio.create_task(sweep(self._store, self._settings.lease_sweep_seconds))

    async def check(self) -> None:
        if self._sweeper is not None and self._sweeper.done():
            # Without it the jobs of workers that died would stay theirs.
            raise Unavailable("the sweep of expired leases has ended; restart the server", reason="SWEEP_ENDED")
        await self._store.read(lambda session: session.execute(text("SELECT 1")))

    async def drain(self) -> None:
        self._store.notifier.close()

    async def stop(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        await self._store.close()


def build(settings: StorageSettings) -> Service:
    """The service, ready to be run by `service_runtime.server`. FailedPrecondition where the database's URL is none."""
    return StorageServer(settings)
