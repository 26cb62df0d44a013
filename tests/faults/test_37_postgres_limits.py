"""Fault 37: Postgres restarts, ends connections and transactions, allows no writing, or loses its tables. Callers are
told to retry, nothing that was acknowledged is lost, and the same server goes on as soon as the database does."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import grpc.aio
import psycopg
import pytest
from sqlalchemy import select

from dgx_music.channel import connect
from dgx_music.error_status import read_error_details
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.maintenance.integrity import find_violations
from tests.support.health import SERVING, wait_for_health
from tests.support.postgres import postgres_server, scratch_database, url_of
from tests.support.storage_servers import storage_server

pytestmark = pytest.mark.slow

NEW = pb.CreateGenerationRequest(
    prompt="a calm piano", model_name="sketch", duration_seconds=1, sample_rate_hz=32000, channels=2
)
SETTINGS = {"DGX_MUSIC_DATABASE_TIMEOUT_SECONDS": "5", "DGX_MUSIC_LEASE_SWEEP_SECONDS": "0.1"}


class Client:
    """Creates generations and keeps what was acknowledged, and the reasons of what was not."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel, self.stub = channel, StorageServiceStub(channel)
        self.acknowledged: list[str] = []
        self.reasons: list[str] = []

    async def create(self) -> bool:
        try:
            self.acknowledged.append((await self.stub.CreateGeneration(NEW, timeout=60)).generation.id)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            self.reasons.append(read_error_details(error).reason)
            return False
        return True

    async def create_at_last(self) -> None:
        async with asyncio.timeout(60):
            while not await self.create():
                pass  # An attempt takes long enough.

    async def watch_lease_end(self) -> None:
        """Sees the sweeper, which has met every fault, end a lease."""
        claim = pb.ClaimGenerationRequest(worker_id="w", model_names=["sketch"], lease_seconds=1)
        key = (await self.stub.ClaimGeneration(claim, timeout=60)).generation.id
        async for change in self.stub.WatchGeneration(pb.WatchGenerationRequest(id=key), timeout=60):
            if change.generation.state == pb.GENERATION_STATE_PENDING:
                return


@pytest.fixture
def shared(postgres: psycopg.Connection[Any]) -> Iterator[str]:
    with scratch_database(postgres) as url:
        schema.upgrade(url)
        yield url


@asynccontextmanager
async def client_of(url: str, address: str) -> AsyncIterator[Client]:
    """A client of a running server; at the end, the server serves, and has all that was acknowledged."""
    async with storage_server(url, address, **SETTINGS), connect(address) as channel:
        client = Client(channel)
        await client.create_at_last()
        yield client
        await client.create_at_last()
        await wait_for_health(channel, SERVING, "dgx_music.storage.v1.StorageService")
        await client.watch_lease_end()
    with Database(url) as database, database.read() as session:
        assert set(client.acknowledged) <= set(session.scalars(select(Generation.id)))
        assert list(find_violations(database)) == []


def name_of(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]


def end_connections(postgres: psycopg.Connection[Any], url: str) -> None:
    statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
    postgres.execute(statement, [name_of(url)])


async def test_database_that_allows_no_writing_is_waited_for(
    postgres: psycopg.Connection[Any], shared: str, address: str
) -> None:
    """As after a failover to a standby. The sweeper, which only writes, goes on as well."""
    async with client_of(shared, address) as client:
        postgres.execute(f"ALTER DATABASE {name_of(shared)} SET default_transaction_read_only = on")
        end_connections(postgres, shared)
        for _ in range(3):
            assert not await client.create()
        listed = await client.stub.ListGenerations(pb.ListGenerationsRequest(), timeout=60)
        assert [row.id for row in listed.generations] == client.acknowledged
        postgres.execute(f"ALTER DATABASE {name_of(shared)} RESET default_transaction_read_only")
        end_connections(postgres, shared)
    assert set(client.reasons) == {"DATABASE_UNAVAILABLE"}


@pytest.mark.parametrize("limit", ["statement_timeout", "transaction_timeout"])
async def test_limits_of_the_database_server_are_temporary(
    postgres: psycopg.Connection[Any], shared: str, address: str, limit: str
) -> None:
    if postgres.execute("SELECT 1 FROM pg_settings WHERE name = %s", [limit]).fetchone() is None:
        pytest.skip(f"this version of Postgres has no {limit}")
    async with client_of(shared, address) as client:
        end_connections(postgres, shared)
        with psycopg.connect(shared) as other:  # Before the limit, which holds for later connections.
            postgres.execute(f"ALTER DATABASE {name_of(shared)} SET {limit} = '300ms'")
            other.execute("LOCK TABLE prompts IN ACCESS EXCLUSIVE MODE")
            for _ in range(2):
                assert not await client.create()
            other.rollback()
        postgres.execute(f"ALTER DATABASE {name_of(shared)} RESET {limit}")
        end_connections(postgres, shared)
    assert set(client.reasons) == {"DATABASE_UNAVAILABLE"}


async def test_no_connection_is_waited_for(postgres: psycopg.Connection[Any], shared: str, address: str) -> None:
    async with client_of(shared, address) as client:
        postgres.execute(f"ALTER DATABASE {name_of(shared)} ALLOW_CONNECTIONS false")
        end_connections(postgres, shared)
        for _ in range(2):
            assert not await client.create()
        postgres.execute(f"ALTER DATABASE {name_of(shared)} ALLOW_CONNECTIONS true")


async def test_connections_that_end_again_and_again_lose_nothing(
    postgres: psycopg.Connection[Any], shared: str, address: str
) -> None:
    async with client_of(shared, address) as client:
        for _ in range(10):
            creates = asyncio.gather(*(client.create() for _ in range(8)))
            end_connections(postgres, shared)
            await creates


async def test_crash_of_the_server_loses_nothing(address: str) -> None:
    with postgres_server(durable=True) as durable:
        url = url_of(durable, "postgres")
        schema.upgrade(url)
        async with client_of(url, address) as client:
            for _ in range(2):
                await client.create_at_last()
                await asyncio.gather(asyncio.to_thread(crash, url), *(client.create() for _ in range(8)))
            await client.create_at_last()


def crash(url: str) -> None:
    """Kills a process of the Postgres server, which then ends all others, and recovers from its log."""
    with psycopg.connect(url) as connection:
        others = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        row = connection.execute(others).fetchone()
    assert row is not None
    os.kill(row[0], signal.SIGKILL)


async def test_lost_tables_end_the_server(shared: str, address: str, open_database: Callable[..., Database]) -> None:
    async with storage_server(shared, address, **SETTINGS) as server, connect(address) as channel:
        client = Client(channel)
        await client.create_at_last()
        with psycopg.connect(shared) as other:
            other.execute("DROP SCHEMA public CASCADE")
            other.execute("CREATE SCHEMA public")
        with suppress(grpc.aio.AioRpcError):
            assert not await client.create()
        assert set(client.reasons) <= {"DATABASE_REPLACED", ""}
        assert await server.wait() != 0
