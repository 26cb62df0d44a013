"""Fault 13: the file of a SQLite database is read-only. What is there is served, changes are refused with the way out,
and the server recovers by itself when it may write again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest

from dgx_music.channel import connect
from dgx_music.error_status import read_error_details
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from storage_service.db.database import Database
from storage_service.domain import creation
from storage_service.domain.creation import NewGeneration
from tests.support.health import NOT_SERVING, SERVING, wait_for_health
from tests.support.storage_servers import storage_server

NEW = pb.CreateGenerationRequest(
    prompt="a calm piano", model_name="sketch", duration_seconds=1, sample_rate_hz=32000, channels=2
)
WITHOUT_ROOTS_RIGHTS = ("setpriv", "--bounding-set=-dac_override") if os.geteuid() == 0 else ()
"""Else the access rights of files do not apply to the server."""


@pytest.mark.parametrize("empty_url", ["sqlite"], indirect=True)
@pytest.mark.slow
async def test_read_only_database_is_served_and_recovers(
    url: str, address: str, database: Database, tmp_path: Path, is_clean: Callable[[], bool]
) -> None:
    with database.write() as session:
        kept = creation.create(session, NewGeneration("a calm piano", "sketch", 1.0, 32000, 2)).id
    database.dispose()
    file = tmp_path / "test.db"
    file.chmod(0o400)
    async with storage_server(url, address, prefix=WITHOUT_ROOTS_RIGHTS), connect(address) as channel:
        stub = StorageServiceStub(channel)
        listed = await stub.ListGenerations(pb.ListGenerationsRequest(), timeout=60)
        assert [row.id for row in listed.generations] == [kept]
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.CreateGeneration(NEW, timeout=60)
        failure = read_error_details(raised.value)
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
        assert "access rights" in failure.message
        assert failure.retry_after_seconds is not None
        await wait_for_health(channel, NOT_SERVING)
        file.chmod(0o600)
        await wait_for_health(channel, SERVING)
        await stub.CreateGeneration(NEW, timeout=60)
    assert is_clean()
