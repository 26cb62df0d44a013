"""Fault 65: Postgres allows fewer connections than its storage servers want. Calls are told why, those that find one go
on, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import grpc.aio
import psycopg
import pytest

from dgx_music.channel import connect
from dgx_music.error_status import read_error_details
from dgx_music.errors import FailedPrecondition, Unavailable
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from storage_service.async_store import Store
from storage_service.config import StorageSettings
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


async def open_store(url: str) -> str | None:
    """Opens a store once something listens there. Returns why it was refused; None if it was not."""
    store = Store(StorageSettings(database_url=url))
    try:
        async with asyncio.timeout(60):
            while True:
                with suppress(Unavailable):
                    await store.open()
                    return None
                await asyncio.sleep(0.05)
    except FailedPrecondition as error:
        return error.reason
    finally:
        await store.close()


PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")


@pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer is not installed (Debian: apt install pgbouncer)")
@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_pooler_that_shares_sessions_is_refused(mode: str) -> None:
    [port] = free_ports(1)
    with postgres_nodes(1) as (node,), TemporaryDirectory() as folder:
        node.create()
        node.start()
        schema.upgrade(node.url)
        config = Path(folder, "pgbouncer.ini")
        os.chmod(folder, 0o755)
        Path(folder, "users.txt").write_text('"postgres" ""\n')
        config.write_text(
            f"[databases]\npostgres=host=127.0.0.1 port={node.port}\n[pgbouncer]\nlisten_addr=127.0.0.1\n"
            f"listen_port={port}\nauth_type=trust\nauth_file={folder}/users.txt\npool_mode={mode}\n"
            f"unix_socket_dir=\n{'user=nobody' if os.geteuid() == 0 else ''}\n"
        )
        pooler = await asyncio.create_subprocess_exec(str(PGBOUNCER), "--quiet", str(config))
        try:
            url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
            assert await open_store(url) == (None if mode == "session" else "DATABASE_POOLER")
        finally:
            pooler.terminate()
            await pooler.wait()
