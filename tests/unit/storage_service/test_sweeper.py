"""The sweep: leases that expire and retry delays that end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from dgx_music.errors import Unavailable
from storage_service.async_store import Store
from storage_service.config import StorageSettings
from storage_service.db.clock import now_plus
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.domain import creation, leases
from storage_service.domain.creation import NewGeneration
from storage_service.states import GenerationStatus
from storage_service.sweeper import run_sweeper
from tests.support.recording_store import RecordingStore, open_store

New = Callable[..., NewGeneration]
Row = Callable[..., Generation]
TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
async def store(settings: StorageSettings) -> AsyncIterator[RecordingStore]:
    async with open_store(settings) as opened:
        yield opened


@asynccontextmanager
async def sweeps(store: Store, period_seconds: float) -> AsyncIterator[None]:
    task = asyncio.create_task(run_sweeper(store, period_seconds))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
async def sweeping(store: Store) -> AsyncIterator[Store]:
    """A store whose sweeps come by what is due alone: the period is out of reach."""
    async with sweeps(store, 3600.0):
        yield store


async def test_expired_lease_wakes_claim(sweeping: Store, row_in: Row) -> None:
    row_in(GenerationStatus.PENDING)
    held = await sweeping.claim("stopped", ["sketch"], 1.0, 0.0)
    assert held is not None
    assert held.lease_expires_at is not None
    claimed = await sweeping.claim("next", ["sketch"], 30.0, 30.0)
    assert claimed is not None
    assert (claimed.id, claimed.attempt) == (held.id, 2)
    assert claimed.started_at is not None
    assert claimed.started_at >= held.lease_expires_at


async def test_ended_retry_delay_wakes_claim(sweeping: Store, row_in: Row) -> None:
    row = row_in(GenerationStatus.PROCESSING)
    failed = await sweeping.write(lambda s: leases.fail(s, row.id, TOKEN, "it broke", retryable=True))
    claimed = await sweeping.claim("next", ["sketch"], 30.0, 30.0)
    assert claimed is not None
    assert claimed.started_at is not None
    assert failed.not_before is not None
    assert claimed.started_at >= failed.not_before


async def test_sweep_notifies_watchers_of_failure(store: Store, row_in: Row) -> None:
    row = row_in(GenerationStatus.PROCESSING, attempt=3, lease_expires_at=now_plus(0.2))
    snapshots = store.watch(row.id)
    assert (await anext(snapshots)).is_processing
    async with sweeps(store, 3600.0):
        assert (await anext(snapshots)).is_failed
        with pytest.raises(StopAsyncIteration):
            await anext(snapshots)


async def test_failed_sweep_is_repeated(tmp_path: Path, new: New, open_database: Callable[..., Database]) -> None:
    settings = StorageSettings(database_url=f"sqlite:///{tmp_path}/a.db", database_timeout_seconds=1.0)
    async with open_store(settings) as store, AsyncExitStack() as sweeping:
        with open_database(settings.database_url).write() as session:
            session.connection()
            await sweeping.enter_async_context(sweeps(store, 0.05))
            with pytest.raises(Unavailable):
                await store.write(lambda s: s.execute(text("SELECT 1")))
            row = creation.create(session, new())
        claimed = await store.claim("w", ["sketch"], 30.0, 30.0)  # Another process made it: the next sweep finds it.
        assert claimed is not None
        assert claimed.id == row.id
