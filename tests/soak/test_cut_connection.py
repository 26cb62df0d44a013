"""The proxy between two services: what it does to connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.support.cut_connection import Forwarder, forwarding_to


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends back what it receives."""
    with suppress(ConnectionResetError):
        while data := await reader.read(100):
            writer.write(data)
    writer.close()


@pytest.fixture
async def forwarder(tmp_path: Path) -> AsyncIterator[Forwarder]:
    server = await asyncio.start_unix_server(answer, tmp_path / "server")
    async with server, forwarding_to(f"unix:{tmp_path}/server") as forwarder:
        yield forwarder


class Client:
    """A connection through the forwarder."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    async def ask(self, data: bytes = b"") -> bytes:
        """Sends the data and returns the answer; empty if the connection has ended."""
        self.writer.write(data)
        try:
            return await self._reader.read(100)
        except ConnectionResetError:
            return b""


@asynccontextmanager
async def connected(forwarder: Forwarder) -> AsyncIterator[Client]:
    host, _, port = forwarder.address.rpartition(":")
    client = Client(*await asyncio.open_connection(host, int(port)))
    try:
        yield client
    finally:
        client.writer.transport.abort()
        await asyncio.sleep(0)


async def test_data_passes_until_the_connection_is_cut(forwarder: Forwarder) -> None:
    async with connected(forwarder) as client:
        assert await client.ask(b"a") == b"a"
        forwarder.cut()
        assert await client.ask() == b""
    async with connected(forwarder) as client:
        assert await client.ask(b"b") == b"b"


async def test_what_was_held_passes_later(forwarder: Forwarder) -> None:
    async with connected(forwarder) as client:
        assert await client.ask(b"a") == b"a"
        forwarder.hold()
        asked = asyncio.create_task(client.ask(b"b"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asked), 0.05)
        forwarder.restore()
        assert await asked == b"b"


async def test_answers_are_lost_and_then_the_connection(forwarder: Forwarder) -> None:
    async with connected(forwarder) as client:
        assert await client.ask(b"a") == b"a"
        forwarder.loses_answers = True
        asked = asyncio.create_task(client.ask(b"b"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asked), 0.05)
        forwarder.restore()
        assert await asked == b""


async def test_a_slow_connection_loses_nothing(forwarder: Forwarder) -> None:
    forwarder.bytes_per_second, forwarder.delay_seconds = 1_000.0, 0.01
    async with connected(forwarder) as client:
        assert await client.ask(b"a" * 20) == b"a" * 20


async def test_without_a_server_the_connection_ends() -> None:
    async with forwarding_to("127.0.0.1:9") as forwarder, connected(forwarder) as client:
        assert await client.ask() == b""
