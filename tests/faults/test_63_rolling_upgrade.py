"""Fault 63: storage servers of two versions on one Postgres, during an upgrade. If the migration says that the servers
of before can go on, they do, and can be started again; if not, they end, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psycopg
import pytest
from sqlalchemy import select

from dgx_music.channel import connect
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.maintenance.integrity import find_violations
from tests.support.health import SERVING, wait_for_health
from tests.support.other_versions import NEXT_REVISION, in_folder, run_code, write_next_version, write_release
from tests.support.postgres import scratch_database
from tests.support.processes import free_ports
from tests.support.storage_servers import storage_server, work_off

pytestmark = pytest.mark.slow

NEW = pb.CreateGenerationRequest(
    prompt="a calm piano", model_name="sketch", duration_seconds=1, sample_rate_hz=32000, channels=2
)
STORAGE = "dgx_music.storage.v1.StorageService"
MIGRATE = "import sys; from storage_service.db import schema; schema.upgrade(sys.argv[1])"
WORK_OFF = """
import asyncio, sys
from dgx_music.channel import connect
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub

async def work_off(address):
    async with connect(address) as channel:
        stub = StorageServiceStub(channel)
        new = pb.CreateGenerationRequest(
            prompt="of an earlier client", model_name="sketch", duration_seconds=1, sample_rate_hz=32000, channels=2
        )
        print((await stub.CreateGeneration(new, timeout=60)).generation.id)
        claim = pb.ClaimGenerationRequest(worker_id="earlier", model_names=["sketch"], lease_seconds=60)
        while (job := await stub.ClaimGeneration(claim, timeout=60)).lease_token:
            held = {"id": job.generation.id, "lease_token": job.lease_token}
            await stub.RenewLease(pb.RenewLeaseRequest(**held, lease_seconds=60, progress=0.5), timeout=60)
            completion = pb.CompleteGenerationRequest(**held, file_path="a.wav", file_size_bytes=1)
            print((await stub.CompleteGeneration(completion, timeout=60)).generation.id)

asyncio.run(work_off(sys.argv[1]))
"""


@pytest.fixture
def shared(postgres: psycopg.Connection[Any]) -> Iterator[str]:
    with scratch_database(postgres) as url:
        yield url


@pytest.fixture
def addresses() -> list[str]:
    return [f"127.0.0.1:{port}" for port in free_ports(2)]


async def create(stub: StorageServiceStub) -> str:
    """Creates a generation, again if it is refused while a migration has the tables locked."""
    async with asyncio.timeout(60):
        while True:
            try:
                return (await stub.CreateGeneration(NEW, timeout=60)).generation.id
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise


async def require_wake_up(one: StorageServiceStub, other: StorageServiceStub) -> str:
    """A job that is created at one server wakes a claim that waits at the other."""
    claim = pb.ClaimGenerationRequest(worker_id="w", model_names=["woken"], lease_seconds=60, wait_seconds=30)
    waiting = asyncio.ensure_future(other.ClaimGeneration(claim, timeout=60))
    new = pb.CreateGenerationRequest()
    new.CopyFrom(NEW)
    new.model_name = "woken"
    created = (await one.CreateGeneration(new, timeout=60)).generation.id
    assert (await waiting).generation.id == created
    return created


def ids_in(url: str) -> set[str]:
    with Database(url) as database, database.read() as session:
        assert list(find_violations(database)) == []
        return set(session.scalars(select(Generation.id)))


async def test_two_versions_serve_while_the_database_is_migrated(
    shared: str, addresses: list[str], tmp_path: Path
) -> None:
    schema.upgrade(shared)
    write_next_version(tmp_path)
    first, second = addresses
    acknowledged: set[str] = set()
    async with connect(first) as one, connect(second) as other:
        stub, next_stub = StorageServiceStub(one), StorageServiceStub(other)
        async with storage_server(shared, first) as server:
            migration = asyncio.ensure_future(run_code(tmp_path, MIGRATE, shared))
            while not migration.done():
                acknowledged.add(await create(stub))
            await migration
            assert schema.current(shared) == NEXT_REVISION
            async with storage_server(shared, second, prefix=in_folder(tmp_path)):
                acknowledged |= {await create(next_stub), await create(stub)}
                acknowledged |= {await require_wake_up(stub, next_stub), await require_wake_up(next_stub, stub)}
                worked = await work_off(addresses, 4, ["sketch"])
                assert len(worked.completed) == len(acknowledged) - 2
                await wait_for_health(one, SERVING, STORAGE)
                assert server.returncode is None
            # Back to the earlier version, which starts on the schema of the later one.
            server.terminate()
            assert await server.wait() == 0
        async with storage_server(shared, first):
            acknowledged.add(await create(stub))
    assert acknowledged <= ids_in(shared)


async def test_server_ends_when_the_schema_no_longer_allows_it(
    shared: str, addresses: list[str], tmp_path: Path
) -> None:
    schema.upgrade(shared)
    write_next_version(tmp_path)
    migration = tmp_path / "migrations" / "versions" / f"{NEXT_REVISION}_moods.py"
    migration.write_text(migration.read_text().replace("min_compatible = ", "min_compatible = revision  # "))
    first, second = addresses
    async with connect(first) as one, connect(second) as other:
        async with storage_server(shared, first) as server:
            acknowledged = {await create(StorageServiceStub(one))}
            await run_code(tmp_path, MIGRATE, shared)
            assert await server.wait() != 0
        async with storage_server(shared, second, prefix=in_folder(tmp_path)):
            acknowledged.add(await create(StorageServiceStub(other)))
    with psycopg.connect(shared) as connection:
        assert acknowledged == {str(key) for (key,) in connection.execute("SELECT id FROM generations")}


async def test_release_0_1_0_is_replaced_while_its_workers_go_on(
    shared: str, addresses: list[str], tmp_path: Path
) -> None:
    """Its servers know no other schema than their own: they end. Its workers and clients go on with today's servers."""
    if not write_release(tmp_path, "0.1.0"):
        pytest.skip("Git does not have the code of 0.1.0")
    first, second = addresses
    await run_code(tmp_path, MIGRATE, shared)
    async with connect(first) as one, connect(second) as other:
        async with storage_server(shared, first, prefix=in_folder(tmp_path)) as server:
            stub = StorageServiceStub(one)
            acknowledged = {await create(stub) for _ in range(3)}
            worked = await work_off([first], 2, ["sketch"])  # Today's workers with the earlier server.
            assert set(worked.completed) == acknowledged
            acknowledged.add(await create(stub))
            schema.upgrade(shared)
            assert await server.wait() != 0
        async with storage_server(shared, second):
            created, *completed = (await run_code(tmp_path, WORK_OFF, second)).split()
            assert set(completed) == {created, *(acknowledged - set(worked.completed))}
            acknowledged.add(await create(StorageServiceStub(other)))
    assert acknowledged | {created} <= ids_in(shared)
