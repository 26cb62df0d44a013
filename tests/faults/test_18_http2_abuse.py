"""HTTP/2 that harms servers elsewhere: of those who use it one connection each, a server of ours loses neither memory
nor files nor time for others."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hyperframe.frame import HeadersFrame

from dgx_music.channel import connect
from dgx_music.storage.v1 import storage_pb2 as storage
from tests.support.raw_http2 import (
    ABUSES,
    Abuse,
    Closed,
    bomb_headers,
    raw_connection,
)
from tests.support.service_processes import ServiceProcesses, service_processes

LIST = "/dgx_music.storage.v1.StorageService/ListGenerations"
HONEST = (("dgx-music-client", "honest"),)
LIMITS = {"DGX_MUSIC_MAX_CONCURRENT_CALLS": "4", "DGX_MUSIC_MAX_CONCURRENT_STREAMS": "64"}
MAX_GROWTH_BYTES = 192 << 20, 64 << 20
"""What a server may take more than before, all abuses together, and for each connection. Some send as much each."""
TIMEOUT_SECONDS = 60.0


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServiceProcesses]:
    """Storage as a process of its own, which all tests here share."""
    async with service_processes(tmp_path_factory.mktemp("abuse") / "data", "storage", **LIMITS) as services:
        yield services


@asynccontextmanager
async def honest_client(services: ServiceProcesses) -> AsyncIterator[None]:
    """Calls storage again and again while the block runs, and at the end; each call must succeed."""
    is_over = asyncio.Event()

    async def call() -> None:
        while not is_over.is_set():
            await services.storage.ListGenerations(
                storage.ListGenerationsRequest(), metadata=HONEST, timeout=TIMEOUT_SECONDS
            )
            await asyncio.sleep(0)

    calling = asyncio.create_task(call())
    yield
    is_over.set()
    await calling
    await call_once(services)


async def call_once(services: ServiceProcesses) -> None:
    """By a connection of its own."""
    async with connect(services.address("storage")) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        health = await stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
    assert health.status == health_pb2.HealthCheckResponse.SERVING


async def abuse(address: str, way: Abuse, count: int) -> None:
    async with raw_connection(address, LIST) as connection:
        with suppress(Closed):
            await way(connection, count)


async def withstand(services: ServiceProcesses, count: int, connections: int) -> None:
    process, address = services.running["storage"], services.address("storage")
    await call_once(services)
    memory, threads = process.memory_bytes(), process.thread_count()
    files, sockets = process.file_descriptor_count(), process.socket_count()
    for way in ABUSES:
        async with honest_client(services):
            await asyncio.gather(*(abuse(address, way, count) for _ in range(connections)))
        growth = process.memory_bytes() - memory
        assert growth < MAX_GROWTH_BYTES[0] + connections * MAX_GROWTH_BYTES[1], way.__name__
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while process.socket_count() > sockets + 2:  # Closed connections, which it notices soon.
            await call_once(services)
    assert process.file_descriptor_count() < files + 40  # The database's, which has more connections than before.
    assert process.thread_count() < threads + 40  # gRPC's own, of which it has as many as CPUs allow.
    for word in ("Traceback", "unexpected_error", "exception"):
        assert word not in process.log()


@pytest.mark.slow
async def test_others_are_served_while_one_connection_abuses_http2(services: ServiceProcesses) -> None:
    await withstand(services, 3000, 1)


@pytest.mark.slow
async def test_others_are_served_while_five_connections_abuse_http2(services: ServiceProcesses) -> None:
    await withstand(services, 4000, 5)


async def test_metadata_that_hpack_hides_from_grpc_is_refused(services: ServiceProcesses) -> None:
    """gRPC's own limit does not count a repeated field: 4 kB on the wire are 400 kB of metadata."""
    async with raw_connection(services.address("storage"), LIST) as connection:
        await bomb_headers(connection, 2000)
        await connection.wait_for("Headers", 20)  # Although none of these calls has sent a message.
        assert set(connection.statuses) == {"8"}  # RESOURCE_EXHAUSTED
    assert "METADATA_TOO_LARGE" in services.running["storage"].log()


async def test_message_that_is_too_large_or_inflates_is_refused(services: ServiceProcesses) -> None:
    memory = services.running["storage"].memory_bytes()
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(services.address("storage"), options) as channel:
        method: Any = channel.unary_unary(LIST)
        for size, compression in (((4 << 20) + 1, grpc.Compression.NoCompression), (64 << 20, grpc.Compression.Gzip)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await method(bytes(size), compression=compression, timeout=TIMEOUT_SECONDS)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert services.running["storage"].memory_bytes() < memory + (96 << 20)
    await call_once(services)
    assert "Traceback" not in services.running["storage"].log()


def hello() -> bytes:
    """The first record of a TLS connection."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


GARBAGE = {
    "nothing but zeros": bytes(4096),
    "random": bytes(range(256)) * 64,
    "TLS": hello(),
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a web page's POST": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n12345",
    "an upgrade": b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    "half a preface": b"PRI * HTTP/2.0\r\n\r\nSX",
    "a preface and garbage": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 4096,
    "no settings": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\x08\6\0\0\0\0\0" + bytes(8),
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
}


async def test_what_is_not_http2_is_answered_by_closing_the_connection(services: ServiceProcesses) -> None:
    host, _, port = services.address("storage").rpartition(":")
    async with honest_client(services), asyncio.timeout(TIMEOUT_SECONDS):
        for content in GARBAGE.values():
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(content)
            with suppress(ConnectionError):
                answer = await reader.read()  # Until it is closed.
                assert b"HTTP/1" not in answer
                assert b"storage" not in answer
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
    assert "Traceback" not in services.running["storage"].log()


async def test_content_that_a_web_page_may_send_is_no_call(services: ServiceProcesses) -> None:
    """A page can send text to other sites, but never this content type without being asked whether it may."""
    for method, kind in (("POST", "text/plain"), ("GET", "application/grpc"), ("OPTIONS", "text/plain")):
        async with raw_connection(services.address("storage"), LIST) as connection:
            fields = connection.request_fields(LIST)[1:4]
            block = connection.encode([(":method", method), *fields, ("content-type", kind)])
            await connection.send(HeadersFrame(1, block, flags=["END_HEADERS", "END_STREAM"]))
            await connection.wait_for("RstStream", 1)  # Ended, and not as a call that has succeeded.
            assert "0" not in connection.statuses
