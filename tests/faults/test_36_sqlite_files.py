"""Fault 36: the files of a SQLite database are deleted, replaced or damaged while the server has them open. It goes on
acknowledging nothing that nobody would find again, says what to do, and ends so that a new process opens what is there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import grpc
import grpc.aio
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

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("empty_url", ["sqlite"], indirect=True)]

NEW = pb.CreateGenerationRequest(
    prompt="a calm piano", model_name="sketch", duration_seconds=1, sample_rate_hz=32000, channels=2
)


async def create(stub: StorageServiceStub) -> str:
    return str((await stub.CreateGeneration(NEW, timeout=60)).generation.id)


async def refusal_of(stub: StorageServiceStub) -> ErrorDetails:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await create(stub)
    return read_error_details(raised.value)


def ids(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.scalars(select(Generation.id)))


def replace_by_copy(file: Path) -> None:
    copy = file.with_name("copy.db")
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    os.replace(copy, file)


@pytest.mark.parametrize("harm", ["wal deleted", "replaced", "deleted"])
async def test_server_acknowledges_nothing_more_and_ends(
    url: str, address: str, tmp_path: Path, open_database: Callable[..., Database], harm: str
) -> None:
    file = tmp_path / "test.db"
    async with storage_server(url, address) as server, connect(address) as channel:
        stub = StorageServiceStub(channel)
        acknowledged = {await create(stub), await create(stub)}
        match harm:
            case "wal deleted":
                file.with_name("test.db-wal").unlink()
            case "replaced":
                replace_by_copy(file)
            case _:
                file.rename(tmp_path / "elsewhere.db")
        failure = await refusal_of(stub)
        assert failure.code is grpc.StatusCode.UNAVAILABLE
        if failure.reason:  # Else it has ended already.
            assert failure.reason == "DATABASE_REPLACED"
        assert await server.wait() != 0
    if harm == "deleted":
        (tmp_path / "elsewhere.db").rename(file)
    assert ids(open_database(url)) == acknowledged


async def test_damaged_page_is_reported_and_what_is_intact_is_served(url: str, address: str, tmp_path: Path) -> None:
    file = tmp_path / "test.db"
    async with storage_server(url, address) as server, connect(address) as channel:
        stub = StorageServiceStub(channel)
        await create(stub)
        server.terminate()
        await server.wait()
    with closing(sqlite3.connect(file)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'prompts'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with file.open("r+b") as opened:
        opened.seek((page - 1) * size)
        opened.write(b"\xff" * size)
    async with storage_server(url, address), connect(address) as channel:
        stub = StorageServiceStub(channel)
        failure = await refusal_of(stub)
        assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DATABASE_DAMAGED")
        assert len((await stub.ListGenerations(pb.ListGenerationsRequest(), timeout=60)).generations) == 1
