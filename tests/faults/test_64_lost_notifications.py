"""Fault 64: a server dies after a commit and before it has told the others, or Postgres takes no more notifications.
Nothing that waits at another server waits for ever, and writing goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import grpc.aio
import psycopg
import pytest

from dgx_music.channel import connect
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from storage_service.db import schema
from tests.support.postgres import scratch_database
from tests.support.postgres_replication import postgres_nodes
from tests.support.processes import free_ports
from tests.support.storage_servers import storage_server

pytestmark = pytest.mark.slow

NEW = pb.CreateGenerationRequest(
    prompt="a calm piano", model_name="sketch", duration_seconds=1, sample_rate_hz=32000, channels=2
)
NEVER = {"DGX_MUSIC_LEASE_SWEEP_SECONDS": "3600"}
"""No sweep hides a notification that was lost."""


@pytest.fixture
def shared(postgres: psycopg.Connection[Any]) -> Iterator[str]:
    with scratch_database(postgres) as url:
        schema.upgrade(url)
        yield url


async def test_change_of_a_server_that_was_killed_before_it_told_is_found(shared: str) -> None:
    first, second = (f"127.0.0.1:{port}" for port in free_ports(2))
    failpoint = {"DGX_MUSIC_FAILPOINT": "storage.after_commit:kill@2"}
    async with (
        storage_server(shared, first, **NEVER, **failpoint) as killed,
        storage_server(shared, second, **NEVER),
        connect(first) as one,
        connect(second) as other,
    ):
        created = (await StorageServiceStub(one).CreateGeneration(NEW, timeout=60)).generation
        watch = StorageServiceStub(other).WatchGeneration(pb.WatchGenerationRequest(id=created.id), timeout=60)
        assert (await watch.read()).generation.state == pb.GENERATION_STATE_PENDING
        with suppress(grpc.aio.AioRpcError):  # It dies before it answers.
            await StorageServiceStub(one).CancelGeneration(pb.CancelGenerationRequest(id=created.id), timeout=60)
        assert await killed.wait() != 0
        assert (await watch.read()).generation.state == pb.GENERATION_STATE_CANCELLED


async def test_full_queue_of_notifications_stops_no_write_and_hides_no_change() -> None:
    first, second = (f"127.0.0.1:{port}" for port in free_ports(2))
    with postgres_nodes(1) as (node,):
        node.create()
        node.start()
        schema.upgrade(node.url)
        async with (
            storage_server(node.url, first, **NEVER),
            storage_server(node.url, second, **NEVER),
            connect(first) as one,
            connect(second) as other,
        ):
            writer, watcher = StorageServiceStub(one), StorageServiceStub(other)
            created = (await writer.CreateGeneration(NEW, timeout=60)).generation
            watch = watcher.WatchGeneration(pb.WatchGenerationRequest(id=created.id), timeout=80)
            await watch.read()
            with psycopg.connect(node.url) as sleeper:
                fill_queue(node.url, sleeper)
                await writer.CancelGeneration(pb.CancelGenerationRequest(id=created.id), timeout=60)
                assert (await watch.read()).generation.state == pb.GENERATION_STATE_CANCELLED


def fill_queue(url: str, sleeper: psycopg.Connection[Any]) -> None:
    """Fills the queue, which a transaction of a listener keeps from being emptied."""
    sleeper.execute("LISTEN dgx_music")
    sleeper.commit()
    sleeper.execute("SELECT 1")  # Begins a transaction, and stays in it.
    with psycopg.connect(url, autocommit=True) as other, suppress(psycopg.OperationalError):
        while True:
            other.execute("SELECT pg_notify('dgx_music', repeat('x', 7000) || n) FROM generate_series(1, 10) n")
