"""Clients of the export servers: of any one, and of the one that has the samples of a generation."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from dgx_music.export.v1.export_pb2_grpc import ExportServiceStub
from gateway.rpc.service_client import ServiceClient
from service_runtime.settings import Settings

if TYPE_CHECKING:
    from dgx_music.export.v1.export_pb2_grpc import ExportServiceAsyncStub

    ExportClient = ServiceClient[ExportServiceAsyncStub]

FULL_NAME = "dgx_music.export.v1.ExportService"
IDLE_SECONDS = 60.0
"""How long the connection to a single server is kept after its last call: servers come and go."""


class ExportServers:
    """Used on the event loop only.

    The addresses of single servers come from storage, where only services write them: each is shown the same
    credentials as the configured address.
    """

    def __init__(self, any_server: ExportClient, settings: Settings) -> None:
        self.any = any_server
        self._settings = settings
        self._clients: dict[str, ExportClient] = {}
        self._users: Counter[str] = Counter()
        self._idle: dict[str, asyncio.TimerHandle] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def at(self, address: str) -> AsyncIterator[ExportClient]:
        """Gives a client of the server at an advertised address while the block runs; of any server if it is empty."""
        if not address:
            yield self.any
            return
        if (timer := self._idle.pop(address, None)) is not None:
            timer.cancel()
        if (client := self._clients.get(address)) is None:
            setting = "DGX_MUSIC_EXPORT_ADVERTISED_ADDRESS of that server"
            client = ServiceClient(FULL_NAME, address, ExportServiceStub, self._settings, address_setting=setting)
            client.open()
            self._clients[address] = client
        self._users[address] += 1
        try:
            yield client
        finally:
            self._users[address] -= 1
            if not self._users[address]:
                del self._users[address]
                loop = asyncio.get_running_loop()
                self._idle[address] = loop.call_later(IDLE_SECONDS, self._close, address)

    async def stop(self) -> None:
        """Closes the connections to single servers."""
        for timer in self._idle.values():
            timer.cancel()
        for address in list(self._clients):
            self._close(address)
        await asyncio.gather(*self._closing)

    def _close(self, address: str) -> None:
        self._idle.pop(address, None)
        task = asyncio.create_task(self._clients.pop(address).close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
