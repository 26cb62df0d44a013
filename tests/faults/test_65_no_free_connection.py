"""Fault 65: Postgres allows fewer connections than its storage servers want. Calls are told why, those that find one go
on, and nothing is lost."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import psycopg
import pytest

from dgx_music.channel import connect
from dgx_music.error_status import read_error_details
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from storage_service.db import schema
from tests.support.postgres_replication import postgres_nodes
from tests.support.processes import free_ports
from tests.support.storage_servers import storage_server

pytestmark = pytest.mark.slow

NEW = pb.CreateGenerationRequest(
    prompt="a calm piano", model_name="sketch", duration_seconds=1, sample_rate_hz=32000, channels=2
)
CALLS = 60
SETTINGS = {"DGX_MUSIC_DATABASE_TIMEOUT_SECONDS": "5"}


async def create_all(stub: StorageServiceStub, refusals: list[str]) -> list[str]:
    """Creates generations, all at once, each again until it is acknowledged."""

    async def create() -> str:
        while True:
            try:
                return (await stub.CreateGeneration(NEW, timeout=60)).generation.id
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
                    raise
                refusals.append(f"{read_error_details(error).reason}: {error.details()}")
                await asyncio.sleep(0.2)

    return list(await asyncio.gather(*(create() for _ in range(CALLS))))


@pytest.mark.parametrize(("connections", "fits"), [(8, False), (2, True)])
async def test_servers_want_more_connections_than_there_are(connections: int, *, fits: bool) -> None:
    first, second = (f"127.0.0.1:{port}" for port in free_ports(2))
    settings = {**SETTINGS, "DGX_MUSIC_DATABASE_CONNECTIONS": str(connections)}
    with postgres_nodes(1) as (node,):
        node.create()
        node.start(max_connections="16", superuser_reserved_connections="1")
        schema.upgrade(node.url)
        async with (
            storage_server(node.url, first, **settings),
            storage_server(node.url, second, **settings),
            connect(first) as one,
            connect(second) as other,
        ):
            refusals: list[str] = []
            created = await asyncio.gather(*(create_all(StorageServiceStub(c), refusals) for c in (one, other)))
            unexpected = [one for one in refusals if not one.startswith(("DATABASE_CONNECTIONS", "SERVER_BUSY"))]
            assert unexpected == []
            told = [one for one in refusals if "lower DGX_MUSIC_DATABASE_CONNECTIONS" in one]
            assert (not told) if fits else told
        with psycopg.connect(node.url) as connection:
            kept = {str(key) for (key,) in connection.execute("SELECT id FROM generations")}
    assert kept == {key for keys in created for key in keys}
