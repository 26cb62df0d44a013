"""One address for several servers: each takes its share of the calls, and none that is not ready gets any."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from dgx_music import Client
from dgx_music.channel import connect
from dgx_music.credentials import NO_CREDENTIALS, Credentials
from dgx_music.errors import ConnectionLost, Unavailable
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from service_runtime.rpc.health import health_monitor
from service_runtime.rpc.load import transport_limits
from service_runtime.rpc.server import serve_services
from storage_service.config import StorageSettings
from storage_service.rpc.server import build
from tests.support.health import NOT_SERVING, SERVING, wait_for_health
from tests.support.name_server import name_server
from tests.support.processes import free_ports
from tests.support.tls_files import make_tls_files

NEW = pb.CreateGenerationRequest(
    prompt="a calm piano", model_name="sketch", duration_seconds=1, sample_rate_hz=32000, channels=2
)
ENOUGH_CALLS = 12
"""For each of two servers to get some."""


class Servers:
    """Storage servers, each with a database of its own, which has as many generations as the server's number says."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self._folder, self._settings = folder, settings
        self._stacks: dict[int, AsyncExitStack] = {}
        self.addresses: dict[int, str] = {}
        self.problems: dict[int, str] = {}
        """Number → what its health check finds."""

    async def start(self, number: int, address: str, credentials: Credentials = NO_CREDENTIALS) -> None:
        settings = StorageSettings(
            data_dir=self._folder / str(number),
            grace_seconds=0.1,
            **self._settings,  # type: ignore[arg-type]
        )
        service, stack = build(settings), AsyncExitStack()
        check = service.check

        async def check_further() -> None:
            await check()
            if number in self.problems:
                raise Unavailable(self.problems[number], reason="TEST")

        service.check = check_further  # type: ignore[method-assign]
        [self.addresses[number]] = await stack.enter_async_context(serve_services([service], [address], settings))
        self._stacks[number] = stack
        async with connect(self.addresses[number], credentials) as channel:
            stub = StorageServiceStub(channel)
            while (await stub.GetStatistics(pb.GetStatisticsRequest(), timeout=60)).total_generations < number:
                await stub.CreateGeneration(NEW, timeout=60)

    async def stop(self, number: int) -> None:
        await self._stacks.pop(number).aclose()

    async def set_problem(self, number: int, problem: str) -> None:
        """Has the health check find something, or nothing; returns when the server reports it."""
        self.problems = {number: problem} if problem else {}
        async with connect(self.addresses[number]) as channel:
            await wait_for_health(channel, NOT_SERVING if problem else SERVING)

    @property
    def together(self) -> str:
        return f"ipv4:{','.join(self.addresses.values())}"


@pytest.fixture
async def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Servers]:
    monkeypatch.setattr(health_monitor, "HEALTH_PERIOD_SECONDS", 0.1)
    servers = Servers(tmp_path)
    async with run(servers):
        yield servers


@asynccontextmanager
async def run(servers: Servers) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for number in list(servers._stacks):
            await servers.stop(number)


async def ask(stub: StorageServiceStub, calls: int = ENOUGH_CALLS) -> set[int]:
    """Returns the numbers of the servers that answered."""
    return {(await stub.GetStatistics(pb.GetStatisticsRequest(), timeout=60)).total_generations for _ in range(calls)}


async def ask_until(stub: StorageServiceStub, expected: set[int]) -> None:
    """Returns once these servers answer, and no other."""
    async with asyncio.timeout(60):
        while await ask(stub) != expected:  # noqa: ASYNC110  # Only the answers tell.
            await asyncio.sleep(0.05)


async def test_each_ready_server_of_a_list_takes_its_share(servers: Servers) -> None:
    for number in (1, 2):
        await servers.start(number, "127.0.0.1:0")
    async with connect(servers.together) as channel:
        stub = StorageServiceStub(channel)
        await ask_until(stub, {1, 2})
        await servers.set_problem(1, "the disk is gone")
        await ask_until(stub, {2})
        await servers.set_problem(1, "")
        await ask_until(stub, {1, 2})
        # A server that ends is left out before it ends. No call fails that may be repeated.
        ending = asyncio.create_task(servers.stop(2))
        while not ending.done():
            assert await ask(stub) <= {1, 2}
        await ending
        assert await ask(stub) == {1}


async def test_client_is_told_that_no_server_is_ready(servers: Servers) -> None:
    await servers.start(1, "127.0.0.1:0")
    await servers.set_problem(1, "the disk is gone")

    def call() -> None:
        with Client(servers.together) as client:
            client.models()

    with pytest.raises(ConnectionLost, match="each of them reports that it is NOT_SERVING"):
        await asyncio.to_thread(call)


async def test_servers_behind_a_name_come_and_go(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_limits, "CONNECTION_AGE_SECONDS", 1)
    [port] = free_ports(1)
    async with name_server() as names:
        await servers.start(1, f"127.0.0.2:{port}")
        names.hosts = ["127.0.0.2"]
        async with connect(f"dns://{names.address}/storage.music:{port}") as channel:
            stub = StorageServiceStub(channel)
            assert await ask(stub) == {1}
            # Nothing fails, and yet the new server is found.
            await servers.start(2, f"127.0.0.3:{port}")
            names.hosts = ["127.0.0.2", "127.0.0.3"]
            await ask_until(stub, {1, 2})
            names.hosts = ["127.0.0.3"]
            await servers.stop(1)
            await ask_until(stub, {2})


@pytest.mark.parametrize("scheme", ["ipv4", "dns"])
async def test_several_servers_are_recognized_by_tls(tmp_path: Path, scheme: str) -> None:
    files = make_tls_files(tmp_path / "tls")
    servers = Servers(tmp_path, **files.server_settings())
    async with run(servers):
        for number in (1, 2):
            await servers.start(number, "127.0.0.1:0", files.credentials())
        port = servers.addresses[1].rpartition(":")[2]
        address = servers.together if scheme == "ipv4" else f"dns:///localhost:{port}"
        async with connect(address, files.credentials()) as channel:
            await ask_until(StorageServiceStub(channel), {1, 2} if scheme == "ipv4" else {1})
