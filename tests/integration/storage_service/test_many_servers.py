"""Storage servers as separate processes: several on one Postgres database, and one on SQLite."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psycopg
import pytest

from dgx_music.channel import connect
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.domain import creation
from storage_service.domain.creation import NewGeneration
from storage_service.events.postgres_listener import APPLICATION_NAME
from tests.support.postgres import postgres_server, scratch_database
from tests.support.processes import free_ports
from tests.support.storage_servers import storage_server, work_off

WORKERS = 32
JOBS = 200
"""Enough for every worker to claim six times while all others do, too."""
NEW = pb.CreateGenerationRequest(
    prompt="a calm piano", model_name="sketch", duration_seconds=1, sample_rate_hz=32000, channels=2
)


@pytest.fixture(scope="module")
def postgres() -> Iterator[psycopg.Connection[Any]]:
    with postgres_server() as connection:
        yield connection


@pytest.fixture
def shared(postgres: psycopg.Connection[Any]) -> Iterator[str]:
    """A separate database for the test."""
    with scratch_database(postgres) as url:
        yield url


def jobs_in(url: str, jobs: int) -> list[str]:
    """Fills the database with jobs and returns their ids."""
    asked = NewGeneration("a calm piano", "sketch", duration_seconds=1.0, sample_rate=32000, channels=2)
    with Database(url) as database:
        schema.ensure(database)
        with database.write() as session:
            return [creation.create(session, asked).id for _ in range(jobs)]


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory if there is one: durability is not what is tested here."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="dgx-") as folder:
        yield Path(folder)


async def work_off_all(url: str, addresses: list[str]) -> None:
    ids = await asyncio.to_thread(jobs_in, url, JOBS)
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(storage_server(url, address)) for address in addresses]
        worked = await work_off(addresses, WORKERS, ["sketch"])
        async with connect(addresses[-1]) as channel:
            statistics = await StorageServiceStub(channel).GetStatistics(pb.GetStatisticsRequest(), timeout=60)
    assert sorted(worked.claimed) == sorted(worked.completed) == sorted(ids)
    assert statistics.completed_generations == statistics.total_generations == JOBS
    assert [server.returncode for server in servers] == [0] * len(servers)


async def test_workers_at_two_servers_complete_each_job_once(shared: str, tmp_path: Path) -> None:
    await work_off_all(shared, [f"unix:{tmp_path}/{name}.sock" for name in "ab"])


@pytest.mark.slow
async def test_workers_at_one_sqlite_server_complete_each_job_once(quick_folder: Path) -> None:
    await work_off_all(f"sqlite:///{quick_folder}/a.db", [f"unix:{quick_folder}/a.sock"])


async def watch_again(
    stub: StorageServiceStub, generation_id: str
) -> tuple[grpc.aio.UnaryStreamCall[pb.WatchGenerationRequest, pb.WatchGenerationResponse], pb.Generation]:
    """Watches at the remaining server and returns its first message. A call or two may fail before gRPC gives up the
    lost connection."""
    while True:
        watch = stub.WatchGeneration(pb.WatchGenerationRequest(id=generation_id), timeout=60, wait_for_ready=True)
        try:
            return watch, (await watch.read()).generation
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise


async def test_watcher_sees_other_servers_changes_and_fails_over(
    shared: str, postgres: psycopg.Connection[Any]
) -> None:
    first, second = (f"127.0.0.1:{port}" for port in free_ports(2))
    never = {"DGX_MUSIC_LEASE_SWEEP_SECONDS": "3600"}  # Notifications must not depend on the sweep.
    async with (
        storage_server(shared, second, **never),
        storage_server(shared, first, **never) as killed,
        connect(f"ipv4:{first},{second}") as either,
        connect(first) as doomed,
        connect(second) as other,
    ):
        watcher, worker = StorageServiceStub(doomed), StorageServiceStub(other)
        claim = pb.ClaimGenerationRequest(worker_id="w", model_names=["sketch"], lease_seconds=60, wait_seconds=30)
        waiting = asyncio.ensure_future(watcher.ClaimGeneration(claim, timeout=60))
        created = (await worker.CreateGeneration(NEW, timeout=60)).generation
        claimed = await waiting
        assert claimed.generation.id == created.id
        watch = watcher.WatchGeneration(pb.WatchGenerationRequest(id=created.id), timeout=60)
        assert (await watch.read()).generation.state == pb.GENERATION_STATE_PROCESSING
        renew = pb.RenewLeaseRequest(id=created.id, lease_token=claimed.lease_token, lease_seconds=60, progress=0.25)
        await worker.RenewLease(renew, timeout=60)
        assert (await watch.read()).generation.progress == 0.25
        # The servers lose their listening connections. Both reconnect and look for changes that they missed.
        postgres.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", [APPLICATION_NAME]
        )
        renew.progress = 0.5
        await worker.RenewLease(renew, timeout=60)
        assert (await watch.read()).generation.progress == 0.5
        killed.kill()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await watch.read()
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        watch, generation = await watch_again(StorageServiceStub(either), created.id)
        assert generation.progress == 0.5
        completion = pb.CompleteGenerationRequest(
            id=created.id, lease_token=claimed.lease_token, file_path="a.wav", file_size_bytes=1
        )
        await worker.CompleteGeneration(completion, timeout=60)
        assert (await watch.read()).generation.state == pb.GENERATION_STATE_COMPLETED
        assert await watch.read() is grpc.aio.EOF
