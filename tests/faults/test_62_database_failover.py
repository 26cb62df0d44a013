"""Fault 62: the primary of a replicated Postgres dies, and its synchronous standby is promoted. Two storage servers
that know both go on at the new primary: nothing that was acknowledged is lost, and calls that wait are woken there."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio
import pytest
from sqlalchemy import select

from dgx_music.channel import connect
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.maintenance import backup
from storage_service.maintenance.integrity import find_violations
from storage_service.states import GenerationStatus
from tests.support.health import SERVING, wait_for_health
from tests.support.postgres_replication import PostgresNode, replicated_pair, tools_folder, url_of_all
from tests.support.processes import free_ports
from tests.support.storage_servers import storage_server

pytestmark = pytest.mark.slow

NEW = pb.CreateGenerationRequest(
    prompt="a calm piano", model_name="sketch", duration_seconds=1, sample_rate_hz=32000, channels=2
)
CLAIM = pb.ClaimGenerationRequest(worker_id="w", model_names=["sketch"], lease_seconds=2, wait_seconds=5)
SETTINGS = {"DGX_MUSIC_DATABASE_TIMEOUT_SECONDS": "5", "DGX_MUSIC_LEASE_SWEEP_SECONDS": "0.5"}
RETRIED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED
"""ABORTED: the commit of a claim or a completion was not acknowledged, but may have happened."""


@dataclass
class Acknowledged:
    """What storage has acknowledged."""

    created: set[str] = field(default_factory=set)
    completed: set[str] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    refused: asyncio.Event = field(default_factory=asyncio.Event)
    """Whether a call has failed in a way that allows another try."""

    async def wait_for(self, completed: int) -> None:
        async with asyncio.timeout(80):
            while len(self.completed) < completed:
                self.changed.clear()
                await self.changed.wait()


async def create_again_and_again(stub: StorageServiceStub, acknowledged: Acknowledged) -> None:
    while True:
        try:
            acknowledged.created.add((await stub.CreateGeneration(NEW, timeout=60)).generation.id)
        except grpc.aio.AioRpcError as error:
            if error.code() not in RETRIED:
                raise
            acknowledged.refused.set()
        await asyncio.sleep(0.02)


async def work_again_and_again(stub: StorageServiceStub, acknowledged: Acknowledged) -> None:
    while True:
        try:
            job = await stub.ClaimGeneration(CLAIM, timeout=60)
            if not job.lease_token:
                continue
            completion = pb.CompleteGenerationRequest(
                id=job.generation.id, lease_token=job.lease_token, file_path="a.wav", file_size_bytes=1
            )
            acknowledged.completed.add((await stub.CompleteGeneration(completion, timeout=60)).generation.id)
            acknowledged.changed.set()
        except grpc.aio.AioRpcError as error:
            if error.code() not in RETRIED:
                raise
            acknowledged.refused.set()


def require_all(standby: PostgresNode, acknowledged: Acknowledged) -> None:
    with Database(standby.url) as database, database.read() as session:
        rows = {row.id: row.status for row in session.execute(select(Generation.id, Generation.status))}
        assert list(find_violations(database)) == []
    assert acknowledged.created <= set(rows)
    assert {rows[key] for key in acknowledged.completed} == {GenerationStatus.COMPLETED}


async def test_promoted_standby_has_all_that_was_acknowledged_and_work_goes_on() -> None:
    first, second = (f"127.0.0.1:{port}" for port in free_ports(2))
    with replicated_pair() as (primary, standby):
        url = url_of_all([standby, primary])  # The standby first: it must not be written to, nor read from.
        async with (
            storage_server(url, first, **SETTINGS),
            storage_server(url, second, **SETTINGS),
            connect(first) as one,
            connect(second) as other,
        ):
            stubs = [StorageServiceStub(one), StorageServiceStub(other)]
            acknowledged = Acknowledged()
            tasks = [asyncio.create_task(create_again_and_again(stub, acknowledged)) for stub in stubs]
            tasks += [asyncio.create_task(work_again_and_again(stub, acknowledged)) for stub in stubs * 2]
            await acknowledged.wait_for(50)
            await asyncio.to_thread(primary.kill)
            await asyncio.wait_for(acknowledged.refused.wait(), 60)
            await asyncio.to_thread(standby.promote)
            await acknowledged.wait_for(len(acknowledged.completed) + 50)
            for channel in (one, other):
                await wait_for_health(channel, SERVING, "dgx_music.storage.v1.StorageService")
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            failed = [task.exception() for task in tasks if not task.cancelled()]
            assert failed == []
            await require_wake_up(*stubs)
        await asyncio.to_thread(require_all, standby, acknowledged)


async def require_wake_up(one: StorageServiceStub, other: StorageServiceStub) -> None:
    """A change at one server wakes a call that waits at the other."""
    created = (await one.CreateGeneration(NEW, timeout=60)).generation
    watch = other.WatchGeneration(pb.WatchGenerationRequest(id=created.id), timeout=60)
    assert (await watch.read()).generation.id == created.id
    await one.CancelGeneration(pb.CancelGenerationRequest(id=created.id), timeout=60)
    assert (await watch.read()).generation.state == pb.GENERATION_STATE_CANCELLED


def test_backup_and_restore_use_the_host_that_allows_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Postgres's own tools, which would use the first host of the URL: here the standby."""
    monkeypatch.setenv("PATH", f"{tools_folder()}:{os.environ['PATH']}")
    with (
        replicated_pair() as (primary, standby),
        Database(url_of_all([standby, primary]), busy_timeout_seconds=60.0) as database,
    ):
        schema.ensure(database)
        backup.create_backup(database, tmp_path / "a.dump")
        assert backup.restore(database, tmp_path / "a.dump") == schema.REVISIONS[-1]
        assert list(find_violations(database)) == []
