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
        channel = grpc.aio.insecure_channel(address, options)
    else:
        channel = grpc.aio.secure_channel(address, secure, options)
    async with channel:
        yield rpc.GenerationServiceStub(channel)


async def call(stub: Any) -> None:
    """Waits for the connection if need be."""
    await stub.ListModels(pb.ListModelsRequest(), wait_for_ready=True, timeout=TIMEOUT_SECONDS)


async def connect_silently(stack: AsyncExitStack, address: str, content: bytes = b"") -> asyncio.StreamReader:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    stack.callback(writer.transport.abort)
    writer.write(content)
    return reader


async def read_to_end(reader: asyncio.StreamReader) -> None:
    with suppress(ConnectionError):
        await reader.read()


@pytest.mark.parametrize("uses_tls", [False, True])
async def test_silent_connections_are_bounded_and_end_while_clients_that_are_there_go_on(
    service: ScriptedService, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uses_tls: bool
) -> None:
    monkeypatch.setattr(transport_limits, "HANDSHAKE_SECONDS", 2)
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
        async with asyncio.timeout(TIMEOUT_SECONDS):
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
