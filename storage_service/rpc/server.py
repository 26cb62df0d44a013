"""The storage service: store, servicer and background tasks with one life cycle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc.aio

from dgx_music.access.v1 import access_pb2
from dgx_music.errors import FailedPrecondition, Unavailable
from dgx_music.storage.v1 import storage_pb2, storage_pb2_grpc
from service_runtime.observability.metrics import Reading
from service_runtime.rpc.process import run_process
from service_runtime.rpc.service import Service
from service_runtime.supervision import UnrecoverableError
from storage_service.async_store import Store
from storage_service.config import StorageSettings
from storage_service.db.error_translation import ReplacedDatabase
from storage_service.domain import token_registry
from storage_service.domain.queue_limits import QueueLimits
from storage_service.domain.queue_metrics import read_queue_metrics
from storage_service.domain.sharing.preemption import Preemption
from storage_service.rpc.servicer import StorageServicer
from storage_service.rpc.token_converters import token_to_proto
from storage_service.sweeper import run_sweeper


class StorageServer:
    """The storage service. On start it creates a new database's schema, and rejects one of another version."""

    full_name = storage_pb2.DESCRIPTOR.services_by_name["StorageService"].full_name

    def __init__(self, settings: StorageSettings) -> None:
        self._settings = settings
        self._store = Store(settings)
        self._tasks: list[asyncio.Task[None]] = []

    def add_to(self, server: grpc.aio.Server) -> None:
        limits = QueueLimits(self._settings.max_pending, self._settings.max_pending_per_client)
        preemption = Preemption(self._settings.preempt_after_seconds)
        servicer = StorageServicer(self._store, self._settings.max_attempts, limits, preemption)
        storage_pb2_grpc.add_StorageServiceServicer_to_server(servicer, server)

    async def start(self) -> None:
        await self._store.open()
        self._tasks = [asyncio.create_task(run_sweeper(self._store, self._settings.lease_sweep_seconds))]
        if self._store.is_shared:
            self._tasks.append(asyncio.create_task(self._store.listen()))

    async def check(self) -> None:
        if any(task.done() for task in self._tasks):
            # Without them the leases of dead workers would never expire, and other servers' changes would be missed.
            raise Unavailable(
                "a background task of the storage server has stopped; restart the server", reason="BACKGROUND_ENDED"
            )
        try:
            await self._store.check()
        except FailedPrecondition as error:
            # The schema was migrated while this server ran. It must not continue writing rows of the old version.
            raise UnrecoverableError(error.message, reason=error.reason, metadata=error.metadata) from error
        except ReplacedDatabase as error:
            raise UnrecoverableError(error.message, reason=error.reason) from error

    def read_metrics(self) -> Sequence[Reading]:
        return self._store.read_now(lambda session: list(read_queue_metrics(session)))

    async def verify_token(self, token_id: str, secret_sha256: bytes) -> access_pb2.Token:
        """Returns the token if it is valid now, for this server's own access control. Raises Unauthenticated."""
        return token_to_proto(await self._store.read(lambda s: token_registry.verify_token(s, token_id, secret_sha256)))

    async def drain(self) -> None:
        self._store.notifier.close()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._store.close()


def build(settings: StorageSettings) -> Service:
    """Returns the service for `service_runtime.rpc.server` to run. Raises FailedPrecondition for an invalid URL."""
    return StorageServer(settings)


def main() -> None:
    """Serves until SIGTERM."""
    run_process(StorageSettings, "storage_address", build)


if __name__ == "__main__":
    main()
