"""`Forwarder` passes a connection on to a server, and cuts it when a test says so, as a network does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Forwarder:
    """Its address, and the connections that pass through it."""

    def __init__(self, server_path: str) -> None:
        self.address = ""
        self.accepted = 0
        self._server_path = server_path
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Breaks all connections without a goodbye; new ones are accepted."""
        for writer in self._writers:
            writer.transport.abort()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        server_reader, server_writer = await asyncio.open_unix_connection(self._server_path)
        await asyncio.gather(self._pass(reader, server_writer), self._pass(server_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
        self._writers.discard(writer)


@asynccontextmanager
async def forwarding_to(address: str) -> AsyncIterator[Forwarder]:
    """Forwards a port of this machine to the server at a Unix socket."""
    forwarder = Forwarder(address.removeprefix("unix:"))
    server = await asyncio.start_server(forwarder.accept, "127.0.0.1", 0)
    forwarder.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield forwarder
    finally:
        forwarder.cut()
        server.close()
