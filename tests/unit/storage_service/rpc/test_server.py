"""The storage server without gRPC: start, health check and stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

import grpc
import grpc.aio
import pytest

from dgx_music.errors import FailedPrecondition, Unavailable
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from storage_service.config import StorageSettings
from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.rpc.server import StorageServer

Stub: TypeAlias = "StorageServiceStub[grpc.aio.Channel]"
UNKNOWN = "00000000-0000-4000-8000-000000000000"


async def test_start_with_newer_schema_is_rejected(
    settings: StorageSettings, open_database: Callable[..., Database]
) -> None:
    assert settings.database_url is not None
    database = open_database(settings.database_url)
    with database.connect_for_writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999', min_compatible = '9999'")
    server = StorageServer(settings)
    try:
        with pytest.raises(FailedPrecondition, match="newer"):
            await server.start()
    finally:
        await server.drain()
        await server.stop()
        with database.connect_for_writing() as connection:
            connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{schema.REVISIONS[-1]}'")


async def test_check_fails_after_sweeper_stopped(settings: StorageSettings) -> None:
    server = StorageServer(settings)
    try:
        await server.start()
        await server.check()
        server._tasks[0].cancel()
        await asyncio.wait([server._tasks[0]])
        with pytest.raises(Unavailable) as raised:
            await server.check()
    finally:
        await server.drain()
        await server.stop()
    assert raised.value.reason == "BACKGROUND_ENDED"
