"""Faults 13 and 19: the disk is full, or the database is locked for longer than the timeout. Callers are told to retry,
nothing that was acknowledged is lost, and the server recovers by itself when there is space or the lock is released."""

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
from dgx_music.error_status import ErrorDetails, read_error_details
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.db.sqlite import sqlite3
from tests.support.storage_servers import storage_server

SHORT_TIMEOUT = {"DGX_MUSIC_DATABASE_TIMEOUT_SECONDS": "0.3"}
MAX_FILE_BYTES = 512 << 10
MAX_ROWS = 100
"""Rows of 10 kB each, which are more than fit."""


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
    """Creates generations until the disk is full; returns the acknowledged ids and the error."""
    acknowledged = []
    for number in range(MAX_ROWS):
        try:
            acknowledged.append(await create(stub, number))
        except grpc.aio.AioRpcError as error:
            return acknowledged, read_error_details(error)
    raise AssertionError("the disk never became full")


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Another connection holds an exclusive lock on the database, or at least on its generations."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            yield
    else:
        with psycopg.connect(url) as connection:
            connection.execute("LOCK TABLE generations IN ACCESS EXCLUSIVE MODE")
            yield
            connection.rollback()


@pytest.mark.parametrize("empty_url", ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)], indirect=True)
async def test_locked_database_returns_retry_delay(url: str, address: str, is_clean: Callable[[], bool]) -> None:
    async with storage_server(url, address, **SHORT_TIMEOUT), connect(address) as channel:
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
async def test_full_disk_loses_nothing_and_recovers(
    url: str, address: str, database: Database, is_clean: Callable[[], bool]
) -> None:
    """Limits the size of the server's files, which SQLite sees as a full disk."""
    async with storage_server(url, address, **SHORT_TIMEOUT) as server, connect(address) as channel:
        stub = StorageServiceStub(channel)
        soft, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, hard))
        acknowledged, failure = await fill(stub)
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
        assert failure.retry_after_seconds is not None
        assert acknowledged
        listed = await stub.ListGenerations(pb.ListGenerationsRequest(page_size=1000), timeout=60)
        assert {row.id for row in listed.generations} == set(acknowledged)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (soft, hard))
        acknowledged.append(await create(stub, MAX_ROWS))
    with database.read() as session:
        assert set(session.scalars(select(Generation.id))) == set(acknowledged)
    assert is_clean()


@pytest.mark.parametrize("empty_url", ["sqlite"], indirect=True)
async def test_watch_ends_when_no_change_can_be_written(url: str, address: str, is_clean: Callable[[], bool]) -> None:
    """Otherwise who waits for a pending generation would wait for ever: no worker can claim it."""
    claim = pb.ClaimGenerationRequest(worker_id="w", model_names=["sketch"], lease_seconds=60)
    async with storage_server(url, address, **SHORT_TIMEOUT) as server, connect(address) as channel:
        stub = StorageServiceStub(channel)
        generation_id = await create(stub, 1)
        watch = stub.WatchGeneration(pb.WatchGenerationRequest(id=generation_id), timeout=60)
        assert (await anext(aiter(watch))).generation.state == pb.GENERATION_STATE_PENDING
        soft, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, hard))
        for call in (stub.ClaimGeneration(claim, timeout=60), anext(aiter(watch))):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call
            failure = read_error_details(raised.value)
            assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (soft, hard))
        assert (await stub.ClaimGeneration(claim, timeout=60)).generation.id == generation_id
        watch = stub.WatchGeneration(pb.WatchGenerationRequest(id=generation_id), timeout=60)
        assert (await anext(aiter(watch))).generation.state == pb.GENERATION_STATE_PROCESSING
    assert is_clean()
