"""What makes each service NOT_SERVING, and what does not. docs/health.md lists it."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import psycopg
import pytest

from dgx_music.channel import connect
from dgx_music.generation.v1 import generation_pb2
from dgx_music.generation.v1.generation_pb2_grpc import GenerationServiceStub
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from export_service.config import ExportSettings
from export_service.rpc.server import build as build_export
from gateway.config import GatewaySettings
from gateway.rpc.server import build as build_gateway
from generation_service.config import GenerationSettings
from generation_service.models.catalog import ModelCatalog
from generation_service.rpc.server import build as build_generation
from service_runtime.rpc.health import health_monitor
from service_runtime.rpc.server import serve_services
from storage_service.config import StorageSettings
from storage_service.db.sqlite import sqlite3
from storage_service.rpc.server import build as build_storage
from tests.support.health import NOT_SERVING, SERVING, read_health, wait_for_health
from tests.support.service_stack import ServiceStack
from tests.support.storage_servers import storage_server
from tests.support.tone_model import Gate, ToneModel

CREATE = pb.CreateGenerationRequest(
    prompt="x" * 2000, model_name="tone", duration_seconds=1, sample_rate_hz=8000, channels=2
)
CHECKS = 20
"""So many health checks of a server have to pass before its state counts as unchanged."""


@pytest.fixture(autouse=True)
def frequent_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEALTH_PERIOD_SECONDS", "RECOVERY_PERIOD_SECONDS"):
        monkeypatch.setattr(health_monitor, name, 0.02)


@asynccontextmanager
async def serving(service: Any, settings: Any, folder: Path) -> AsyncIterator[grpc.aio.Channel]:
    """Runs a service in the test's process, so that its health is checked often, once it is SERVING."""
    address = f"unix:{folder}/s"
    async with serve_services([service], [address], settings), connect(address) as channel:
        await wait_for_health(channel, SERVING)
        yield channel


def counted_checks(service: Any) -> asyncio.Semaphore:
    """Returns a semaphore that each health check of the service which passes releases."""
    passed, check = asyncio.Semaphore(0), service.check

    async def counting() -> None:
        await check()
        passed.release()

    service.check = counting
    return passed


async def create(stub: Any) -> None:
    await stub.CreateGeneration(CREATE, timeout=60)


@pytest.mark.parametrize("empty_url", ["sqlite"], indirect=True)
async def test_storage_is_not_serving_while_its_disk_is_full(url: str, address: str, tmp_path: Path) -> None:
    async with storage_server(url, address) as server, connect(address) as channel:
        await wait_for_health(channel, SERVING)
        soft, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, hard))
        with pytest.raises(grpc.aio.AioRpcError):
            await create(StorageServiceStub(channel))
        await wait_for_health(channel, NOT_SERVING)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (soft, hard))
        await wait_for_health(channel, SERVING)
        await create(StorageServiceStub(channel))


@pytest.mark.parametrize("empty_url", ["postgres"], indirect=True)
async def test_storage_is_not_serving_while_postgres_is_gone(
    url: str, postgres: psycopg.Connection[Any], tmp_path: Path
) -> None:
    settings = StorageSettings(data_dir=tmp_path, database_url=url)
    name = url.partition("?")[0].rpartition("/")[2]
    async with serving(build_storage(settings), settings, tmp_path) as channel:
        postgres.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
        postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        await wait_for_health(channel, NOT_SERVING)
        postgres.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")
        await wait_for_health(channel, SERVING)


async def test_storage_is_serving_while_its_database_is_locked_and_its_queue_is_long(url: str, tmp_path: Path) -> None:
    settings = StorageSettings(data_dir=tmp_path, database_url=url)
    service = build_storage(settings)
    passed = counted_checks(service)
    async with serving(service, settings, tmp_path) as channel:
        with WriteLock(url):
            creating = [asyncio.create_task(create(StorageServiceStub(channel))) for _ in range(50)]
            async with asyncio.timeout(60):
                for _ in range(CHECKS):
                    await passed.acquire()
            assert await read_health(channel) == SERVING
            assert not any(task.done() for task in creating)
        await asyncio.gather(*creating)


class WriteLock:
    """Holds a lock that all writers of the database wait for."""

    def __init__(self, url: str) -> None:
        is_sqlite = url.startswith("sqlite")
        self._connection: Any = (
            sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None) if is_sqlite else psycopg.connect(url)
        )
        self._statement = "BEGIN IMMEDIATE" if is_sqlite else "LOCK TABLE generations IN EXCLUSIVE MODE"

    def __enter__(self) -> None:
        self._connection.execute(self._statement)

    def __exit__(self, *_: object) -> None:
        self._connection.rollback()
        self._connection.close()


async def test_export_is_not_serving_while_its_disk_is_full(small_disk: Path) -> None:
    settings = ExportSettings(data_dir=small_disk)
    async with serving(build_export(settings), settings, small_disk) as channel:
        (small_disk / "filler").write_bytes(bytes(3_500_000))
        await wait_for_health(channel, NOT_SERVING)
        (small_disk / "filler").unlink()
        await wait_for_health(channel, SERVING)


async def test_generation_and_gateway_follow_a_neighbour_that_is_gone_but_not_one_that_is_slow(
    tmp_path: Path, address: str
) -> None:
    names = ("export", "generation", "gateway")
    settings: dict[str, Any] = {f"{name}_address": f"unix:{tmp_path}/{name[:3]}" for name in names}
    settings |= {"data_dir": tmp_path, "storage_address": address, "grace_seconds": 0.1}
    model = ToneModel()
    generation = build_generation(GenerationSettings(**settings), catalog=ModelCatalog(lambda: [model.entry]))
    gateway = build_gateway(GatewaySettings(**settings))
    passed = [counted_checks(service) for service in (generation, gateway)]
    async with AsyncExitStack() as stack:
        for name, service in zip(names, (build_export(ExportSettings(**settings)), generation, gateway), strict=True):
            server = serve_services([service], [settings[f"{name}_address"]], GatewaySettings(**settings))
            await stack.enter_async_context(server)
        channels = [await stack.enter_async_context(connect(settings[f"{name}_address"])) for name in names[1:]]
        for channel in channels:
            assert await read_health(channel) == NOT_SERVING  # There is no storage service yet.
        url = f"sqlite:///{tmp_path}/storage.db"
        async with storage_server(url, address) as storage:
            for channel in channels:
                await wait_for_health(channel, SERVING)
            os.kill(storage.pid, signal.SIGSTOP)
            try:
                for checks in passed:
                    while not checks.locked():
                        await checks.acquire()
                await asyncio.sleep(1.6)  # A neighbour does not answer for this long if the machine is busy.
                for checks in passed:
                    if not checks.locked():  # One answer may have been under way when the process was stopped.
                        await checks.acquire()
                assert all(checks.locked() for checks in passed)
                for channel in channels:
                    assert await read_health(channel) == SERVING
            finally:
                os.kill(storage.pid, signal.SIGCONT)
            for checks in passed:
                async with asyncio.timeout(60):
                    await checks.acquire()
            storage.kill()
            for channel in channels:
                await wait_for_health(channel, NOT_SERVING)


async def test_generation_is_serving_while_its_queue_is_full_and_not_once_its_device_is_lost(tmp_path: Path) -> None:
    stack = ServiceStack(tmp_path)
    gate = Gate()

    def lose_device() -> None:
        gate()
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    stack.model.at["a", 1] = lose_device
    request = generation_pb2.GenerateRequest(model_name="tone", prompt="a", duration_seconds=1, seed=1)
    try:
        await stack.start("storage", "export", "generation", max_batch_size=1, max_waiting=0)
        assert stack.generation is not None
        passed = counted_checks(stack.generation)
        async with connect(stack.addresses["generation"]) as channel:
            stub = GenerationServiceStub(channel)
            running = stub.Generate(request, timeout=60)
            await gate.reached()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Generate(request, timeout=60).read()
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            async with asyncio.timeout(60):
                for _ in range(CHECKS):
                    await passed.acquire()
            assert await read_health(channel) == SERVING
            gate.open()
            await wait_for_health(channel, NOT_SERVING)
            running.cancel()
    finally:
        gate.open()
        await stack.stop_all()
