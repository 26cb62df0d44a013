"""`Forwarder` passes connections on to a server, and cuts, holds or slows them when a test says so."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from dgx_music.address import UNIX_PREFIX

PIECE_BYTES = 1 << 16


class Forwarder:
    """Its address, and the connections that pass through it."""

    def __init__(self, server: str) -> None:
        self.address = ""
        self.accepted = 0
        self.delay_seconds = 0.0
        """How long each piece of data takes."""
        self.bytes_per_second = math.inf
        """How much passes in each direction of each connection."""
        self.loses_answers = False
        """Whether what the server sends is lost. `restore` then cuts the connections, which have missed something."""
        self._server = server
        self._sent_bytes = 0
        self._sent = asyncio.Condition()
        self._writers: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._is_passing = asyncio.Event()
        self._is_passing.set()

    def cut(self) -> None:
        """Breaks all connections without a goodbye; new ones are accepted."""
        for writer in self._writers:
            writer.transport.abort()

    def hold(self) -> None:
        """Passes nothing on until `restore`, while all connections stay open: neither end learns of it."""
        self._is_passing.clear()

    async def wait_until_sent(self, size: int) -> None:
        """Returns when the server has been sent so many more bytes than it has been now."""
        end = self._sent_bytes + size
        async with self._sent:
            await self._sent.wait_for(lambda: self._sent_bytes >= end)

    def restore(self) -> None:
        """Passes everything on again, what was held first."""
        if self.loses_answers:
            self.cut()
        self.delay_seconds, self.bytes_per_second, self.loses_answers = 0.0, math.inf, False
        self._is_passing.set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        try:
            server_reader, server_writer = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(
            self._pass(reader, server_writer, is_answer=False), self._pass(server_reader, writer, is_answer=True)
        )

    async def end(self) -> None:
        """Cuts all connections, and returns when nothing is left of them."""
        self.restore()
        while self._connections:
            self.cut()
            await asyncio.wait(self._connections, timeout=0.1)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._server.startswith(UNIX_PREFIX):
            return await asyncio.open_unix_connection(self._server.removeprefix(UNIX_PREFIX))
        host, _, port = self._server.rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool) -> None:
        self._writers.add(writer)
        with suppress(OSError):
            while data := await reader.read(PIECE_BYTES):
                if delay := self.delay_seconds + len(data) / self.bytes_per_second:
                    await asyncio.sleep(delay)
                await self._is_passing.wait()
                if not (is_answer and self.loses_answers):
                    writer.write(data)
                    await writer.drain()
                if not is_answer:
                    await self._count(len(data))
        writer.close()
        self._writers.discard(writer)

    async def _count(self, size: int) -> None:
        async with self._sent:
            self._sent_bytes += size
            self._sent.notify_all()


@asynccontextmanager
async def forwarding_to(address: str) -> AsyncIterator[Forwarder]:
    """Forwards a port of this machine to the server at `host:port` or `unix:/path`, whether or not it runs yet."""
    forwarder = Forwarder(address)
    server = await asyncio.start_server(forwarder.accept, "127.0.0.1", 0)
    forwarder.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield forwarder
    finally:
        server.close()
        await forwarder.end()
