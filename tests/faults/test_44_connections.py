"""Connections that say nothing, by the hundred: they are bounded, and closed after a moment. One client leaves streams
to others, and one that vanishes is noticed."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest
from hyperframe.frame import SettingsFrame

from dgx_music import channel
from dgx_music.channel import CHANNEL_OPTIONS
from dgx_music.error_status import read_error_details
from dgx_music.generation.v1 import generation_pb2 as pb
from dgx_music.generation.v1 import generation_pb2_grpc as rpc
from service_runtime.rpc.load import transport_limits
from service_runtime.rpc.server import serve_services
from service_runtime.settings import Settings
from tests.support.raw_http2 import message, raw_connection
from tests.support.scripted_service import ScriptedService
from tests.support.tls_files import TlsFiles, make_tls_files

MAX_CONNECTIONS = 20
TIMEOUT_SECONDS = 60.0
SILENT_SECONDS = 30.0
"""Less than gRPC waits by itself, and far more than the test lets it."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, grace_seconds=0.1, max_connections=MAX_CONNECTIONS, max_concurrent_streams=4)


@pytest.fixture
async def service() -> ScriptedService:
    return ScriptedService()


@asynccontextmanager
async def separate_stub(address: str, tls: TlsFiles | None = None) -> AsyncIterator[Any]:
    """A client with a connection of its own."""
    options = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    secure = None if tls is None else tls.credentials().channel_credentials()
    if secure is None:
        connection = grpc.aio.insecure_channel(address, options)
    else:
        connection = grpc.aio.secure_channel(address, secure, options)
    async with connection:
        yield rpc.GenerationServiceStub(connection)


async def call(stub: Any) -> None:
    """Waits for the connection if need be."""
    await stub.ListModels(pb.ListModelsRequest(), wait_for_ready=True, timeout=TIMEOUT_SECONDS)


async def connect_silently(stack: AsyncExitStack, address: str, content: bytes = b"") -> asyncio.StreamReader:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    stack.push_async_callback(close, writer)
    writer.write(content)
    return reader


async def close(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


async def read_to_end(reader: asyncio.StreamReader) -> None:
    with suppress(ConnectionError):
        await reader.read()


@pytest.mark.parametrize("uses_tls", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_silent_connections_are_bounded_and_end_while_clients_that_are_there_go_on(
    service: ScriptedService, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uses_tls: bool
) -> None:
    monkeypatch.setattr(transport_limits, "HANDSHAKE_SECONDS", 1)
    tls = make_tls_files(tmp_path / "tls") if uses_tls else None
    if tls is not None:
        settings = settings.model_copy(update=tls.server_settings())
    async with AsyncExitStack() as stack:
        bound = await stack.enter_async_context(serve_services([service], ["127.0.0.1:0"], settings))
        early = await stack.enter_async_context(separate_stub(bound[0], tls))
        await call(early)
        before = psutil.Process().num_fds()
        half = b"\x16\x03\x01" if uses_tls else b"PRI * HTTP/2.0\r\n\r\n"
        silent = [await connect_silently(stack, bound[0], half if number % 2 else b"") for number in range(100)]
        await call(early)
        assert psutil.Process().num_fds() <= before + len(silent) + MAX_CONNECTIONS
        async with asyncio.timeout(SILENT_SECONDS):
            await asyncio.gather(*map(read_to_end, silent))  # All are closed, at once or soon.
        late = await stack.enter_async_context(separate_stub(bound[0], tls))
        await call(late)


async def test_one_client_leaves_streams_to_others(service: ScriptedService, settings: Settings) -> None:
    """On any number of connections. Of the 16 streams of a service behind the gateway, 14."""
    leave = asyncio.Event()

    async def hold(context: Any) -> None:
        await leave.wait()

    service.behaviour = hold
    async with AsyncExitStack() as stack:
        bound = await stack.enter_async_context(serve_services([service], ["127.0.0.1:0"], settings))
        stubs = [await stack.enter_async_context(separate_stub(bound[0])) for _ in range(4)]

        async def listen(number: int, client: str) -> None:
            """Returns once the stream has begun."""
            stream = stubs[number % 4].Generate(
                pb.GenerateRequest(), metadata=(("dgx-music-client", client),), timeout=TIMEOUT_SECONDS
            )
            await stream.read()

        await asyncio.gather(*(listen(number, "greedy") for number in range(14)))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await listen(14, "greedy")
        details = read_error_details(caught.value)
        assert (details.code, details.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SERVER_BUSY")
        assert details.retry_after_seconds is not None
        await listen(15, "modest")
        leave.set()


async def test_server_may_open_more_files_than_the_system_allows_at_first(
    service: ScriptedService, settings: Settings
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))
    try:
        async with serve_services([service], ["127.0.0.1:0"], settings):
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(hard, transport_limits.MAX_OPEN_FILES)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
async def test_client_that_vanishes_with_a_call_is_noticed(
    service: ScriptedService, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It neither closes its connection nor answers a ping, like a machine without power."""
    monkeypatch.setattr(transport_limits, "KEEPALIVE_SECONDS", 1)
    monkeypatch.setattr(transport_limits, "KEEPALIVE_TIMEOUT_SECONDS", 1)
    async with AsyncExitStack() as stack:
        bound = await stack.enter_async_context(serve_services([service], ["127.0.0.1:0"], settings))
        path = "/dgx_music.generation.v1.GenerationService/Generate"
        connection = await stack.enter_async_context(raw_connection(bound[0], path))
        await connection.send(SettingsFrame(0, flags=["ACK"]))
        await connection.send(connection.headers(1), *connection.data(1, message(b""), end=True))
        await connection.wait_for("Data", 1)
        await asyncio.wait_for(service.closed.wait(), TIMEOUT_SECONDS)  # It leaves pings unanswered.


class BlackHole:
    """Passes connections on to a server, until it swallows what both sides send, as a network without a route does."""

    def __init__(self, server_address: str) -> None:
        self.address = ""
        self._server_address = server_address
        self._swallows = False
        self._writers: list[asyncio.StreamWriter] = []

    def swallow(self) -> None:
        self._swallows = True

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._server_address.rpartition(":")
        server_reader, server_writer = await asyncio.open_connection(host, int(port))
        self._writers += writer, server_writer
        await asyncio.gather(self._pass(reader, server_writer), self._pass(server_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while content := await reader.read(1 << 16):
                if not self._swallows:
                    writer.write(content)

    async def close(self) -> None:
        for writer in self._writers:
            await close(writer)


@pytest.mark.slow
async def test_server_that_vanishes_is_noticed_by_its_client(
    service: ScriptedService, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorter = {"grpc.keepalive_time_ms": 1000, "grpc.keepalive_timeout_ms": 1000, "grpc.http2.ping_timeout_ms": 1000}
    options = [(name, shorter.get(name, value)) for name, value in CHANNEL_OPTIONS]
    monkeypatch.setattr(channel, "CHANNEL_OPTIONS", options)
    async with AsyncExitStack() as stack:
        bound = await stack.enter_async_context(serve_services([service], ["127.0.0.1:0"], settings))
        hole = BlackHole(bound[0])
        stack.push_async_callback(hole.close)
        server = await asyncio.start_server(hole.accept, "127.0.0.1", 0)
        stack.callback(server.close)
        client = await stack.enter_async_context(channel.connect(f"127.0.0.1:{server.sockets[0].getsockname()[1]}"))
        stub: Any = rpc.GenerationServiceStub(client)
        entered = asyncio.Event()

        async def hold(context: Any) -> None:
            entered.set()
            await asyncio.Event().wait()

        service.behaviour = hold
        call = stub.ListModels(pb.ListModelsRequest())  # Without a deadline.
        await asyncio.wait_for(entered.wait(), TIMEOUT_SECONDS)
        hole.swallow()
        server.close()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(call, TIMEOUT_SECONDS)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
