"""Faults 13 and 19: the database has no room left, or is locked for longer than anybody waits. Callers are told to come
back, nothing that was acknowledged is lost, and it goes on by itself when there is room, or the lock is gone."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import grpc
import grpc.aio
import psycopg
import pytest
from sqlalchemy import select

from dgx_music.channel import connect
from dgx_music.status import ErrorDetails, read_error_details
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.db.sqlite import sqlite3
from tests.support.storage_servers import storage_server

PATIENCE = {"DGX_MUSIC_DATABASE_TIMEOUT_SECONDS": "0.3"}
ROOM_BYTES = 512 << 10
MOST_ROWS = 100
"""Of 10 kB each: more than fit."""


async def create(stub: StorageServiceStub, number: int) -> str:
    made = await stub.CreateGeneration(
        pb.CreateGenerationRequest(
            prompt=f"{number} " * 2000, model_name="sketch", duration_seconds=1, sample_rate_hz=32000, channels=2
        ),
        timeout=60,
    )
    return made.generation.id


async def refusal_of(stub: StorageServiceStub) -> ErrorDetails:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await create(stub, 0)
    return read_error_details(raised.value)


async def fill(stub: StorageServiceStub) -> tuple[list[str], ErrorDetails]:
    """Creates until there is no room; gives the ids of those acknowledged, and the refusal."""
    acknowledged = []
    for number in range(MOST_ROWS):
        try:
            acknowledged.append(await create(stub, number))
        except grpc.aio.AioRpcError as error:
            return acknowledged, read_error_details(error)
    raise AssertionError("all fitted")


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Somebody else has the whole database, or at least its generations, to itself."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            yield
    else:
        with psycopg.connect(url) as connection:
            connection.execute("LOCK TABLE generations IN ACCESS EXCLUSIVE MODE")
            yield
            connection.rollback()


async def test_a_locked_database_says_when_to_come_back(url: str, address: str, is_clean: Callable[[], bool]) -> None:
    async with storage_server(url, address, **PATIENCE), connect(address) as channel:
        stub = StorageServiceStub(channel)
        generation_id = await create(stub, 1)
        with locked(url):
            for _ in range(3):
                failure = await refusal_of(stub)
                assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_LOCKED")
                assert failure.retry_after_seconds is not None
        claim = pb.ClaimGenerationRequest(worker_id="w", model_names=["sketch"], lease_seconds=60)
        assert (await stub.ClaimGeneration(claim, timeout=60)).generation.id == generation_id
    assert is_clean()


@pytest.mark.parametrize("empty_url", ["sqlite"], indirect=True)
async def test_a_disk_that_is_full_loses_nothing_and_recovers(
    url: str, address: str, database: Database, is_clean: Callable[[], bool]
) -> None:
    """No file of the server may grow beyond a limit: to SQLite, what a full disk is."""
    async with storage_server(url, address, **PATIENCE) as server, connect(address) as channel:
        stub = StorageServiceStub(channel)
        soft, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (ROOM_BYTES, hard))
        acknowledged, failure = await fill(stub)
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
        assert failure.retry_after_seconds is not None
        assert acknowledged
        listed = await stub.ListGenerations(pb.ListGenerationsRequest(page_size=1000), timeout=60)
        assert {row.id for row in listed.generations} == set(acknowledged)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (soft, hard))
        acknowledged.append(await create(stub, MOST_ROWS))
    with database.read() as session:
        assert set(session.scalars(select(Generation.id))) == set(acknowledged)
    assert is_clean()
