"""The async store: claims and watches that wait for notifications, and shutdown."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from structlog.contextvars import bound_contextvars, get_contextvars

from dgx_music.errors import InvalidArgument, NotFound, Unavailable
from storage_service.async_store import Store
from storage_service.config import StorageSettings
from storage_service.db.database import Database
from storage_service.db.error_translation import UnwritableDatabase
from storage_service.db.models import Generation
from storage_service.domain import creation, leases, lifecycle
from storage_service.domain.creation import NewGeneration
from storage_service.states import GenerationStatus
from tests.support.full_disk import fill_disk
from tests.support.recording_store import RecordingStore, open_store

New = Callable[..., NewGeneration]
Row = Callable[..., Generation]
TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
async def store(settings: StorageSettings) -> AsyncIterator[RecordingStore]:
    async with open_store(settings) as opened:
        yield opened


async def waiting_claim(store: RecordingStore, models: list[str], wait_seconds: float = 30.0) -> asyncio.Task[Any]:
    """A claim that has looked, found nothing and waits."""
    store.work_done.clear()
    task = asyncio.create_task(store.claim("w", models, 30.0, wait_seconds))
    await store.work_done.wait()
    return task


async def test_work_in_threads_keeps_the_context_of_its_call(store: RecordingStore) -> None:
    with bound_contextvars(generation_id="g1"):
        assert await store.read(lambda s: get_contextvars()) == {"generation_id": "g1"}
        assert await store.write(lambda s: get_contextvars()) == {"generation_id": "g1"}


async def test_waiting_claim_is_woken_by_create(store: RecordingStore, new: New) -> None:
    claim = await waiting_claim(store, ["sketch"])
    other = await waiting_claim(store, ["other"], 0.3)
    created = await store.write(lambda s: creation.create(s, new()))
    claimed = await claim
    assert claimed.id == created.id
    assert claimed.is_processing
    assert await other is None


async def test_waiting_claim_does_not_query_database(store: RecordingStore, new: New) -> None:
    claim = await waiting_claim(store, ["sketch"], 0.3)
    before = store.work_count
    assert await claim is None
    assert store.work_count == before


async def test_claim_that_was_woken_and_fails_wakes_another(
    store: RecordingStore, new: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One job wakes one claim. If that one can't look for it, the next one does, not the next sweep."""
    failing, other = [await waiting_claim(store, ["sketch"]) for _ in range(2)]
    claim = leases.claim

    def fail_once(*arguments: Any) -> Any:
        monkeypatch.setattr(leases, "claim", claim)
        raise Unavailable("the connection was lost", reason="LOST")

    monkeypatch.setattr(leases, "claim", fail_once)
    created = await store.write(lambda s: creation.create(s, new()))
    with pytest.raises(Unavailable):
        await failing
    assert (await other).id == created.id


async def test_claim_without_wait_returns_immediately(store: Store) -> None:
    assert await store.claim("w", ["sketch"], 30.0, 0.0) is None
    for wait in (-1.0, 31.0, float("nan")):
        with pytest.raises(InvalidArgument) as raised:
            await store.claim("w", ["sketch"], 30.0, wait)
        assert raised.value.field == "wait_seconds"


async def test_many_waiting_claims_get_one_job_each(store: Store, new: New) -> None:
    claims = [asyncio.create_task(store.claim(f"w{n}", ["sketch"], 30.0, 30.0)) for n in range(10)]
    created = [await store.write(lambda s: creation.create(s, new())) for _ in range(10)]
    claimed = await asyncio.gather(*claims)
    assert {row.id for row in claimed if row} == {row.id for row in created}


async def test_watch_yields_each_state_and_ends(store: Store, new: New) -> None:
    created = await store.write(lambda s: creation.create(s, new()))
    snapshots = store.watch(created.id.upper())
    assert (await anext(snapshots)).is_pending
    claimed = await store.claim("w", ["sketch"], 30.0, 0.0)
    assert claimed is not None
    assert (await anext(snapshots)).is_processing
    token = claimed.lease_token or ""
    await store.write(lambda s: leases.renew(s, created.id, token, 30.0, None, 0.5))
    assert (await anext(snapshots)).progress == 0.5
    await store.write(lambda s: lifecycle.cancel(s, created.id))
    assert [row.status async for row in snapshots] == ["cancelled"]
    assert not store.notifier._watchers


async def test_full_disk_ends_watches_of_all_generations(store: Store, new: New) -> None:
    ids = [(await store.write(lambda s: creation.create(s, new()))).id for _ in range(2)]
    watches = [store.watch(one) for one in ids]
    for snapshots in watches:
        assert (await anext(snapshots)).is_pending
    with pytest.raises(UnwritableDatabase):
        await store.write(fill_disk)
    for snapshots in watches:
        with pytest.raises(UnwritableDatabase, match="is full"):
            await anext(snapshots)
    assert (await anext(store.watch(ids[0]))).is_pending  # There may be room by now.


async def test_watch_woken_without_change_yields_nothing(store: RecordingStore, new: New) -> None:
    created = await store.write(lambda s: creation.create(s, new()))
    snapshots = store.watch(created.id)
    assert (await anext(snapshots)).is_pending
    following = asyncio.create_task(anext(snapshots))  # type: ignore[arg-type]
    store.work_done.clear()
    store.notifier.wake_all()
    await store.work_done.wait()
    assert await store.claim("w", ["sketch"], 30.0, 0.0) is not None
    assert (await following).is_processing


async def test_slow_watcher_gets_latest_state_only(store: Store, new: New) -> None:
    created = await store.write(lambda s: creation.create(s, new()))
    snapshots = store.watch(created.id)
    await anext(snapshots)
    claimed = await store.claim("w", ["sketch"], 30.0, 0.0)
    assert claimed is not None
    token = claimed.lease_token or ""
    for n in range(20):
        progress = (n + 1) / 20
        await store.write(lambda s, p=progress: leases.renew(s, created.id, token, 30.0, None, p))  # type: ignore[misc]
    assert (await anext(snapshots)).progress == 1.0
    await snapshots.aclose()
    assert not store.notifier._watchers


async def test_watch_of_finished_deleted_or_unknown_generation(store: Store, row_in: Row) -> None:
    done = row_in(GenerationStatus.COMPLETED)
    assert [row.id async for row in store.watch(done.id)] == [done.id]
    waits = row_in(GenerationStatus.PENDING)
    snapshots: AsyncGenerator[Generation, None] = store.watch(waits.id)
    await anext(snapshots)
    await store.write(lambda s: lifecycle.remove(s, waits.id))
    assert [row async for row in snapshots] == []
    with pytest.raises(NotFound):
        await anext(store.watch(waits.id))
    with pytest.raises(InvalidArgument):
        await anext(store.watch("x"))


async def test_notifier_close_ends_claims_and_watches(store: RecordingStore, row_in: Row) -> None:
    row = row_in(GenerationStatus.PROCESSING)
    snapshots = store.watch(row.id)
    await anext(snapshots)
    claim = await waiting_claim(store, ["sketch"])
    watch = asyncio.create_task(anext(snapshots))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    store.notifier.close()
    assert await claim is None
    with pytest.raises(Unavailable) as raised:
        await watch
    assert raised.value.reason == "SHUTTING_DOWN"
    assert await store.claim("w", ["sketch"], 30.0, 30.0) is None
    late = store.watch(row.id)
    await anext(late)
    with pytest.raises(Unavailable):
        await anext(late)


async def test_cancelled_write_still_publishes_its_changes(store: RecordingStore, new: New) -> None:
    claim = await waiting_claim(store, ["sketch"])
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    def work(session: Any) -> None:
        loop.call_soon_threadsafe(began.set)
        creation.create(session, new())

    create = asyncio.create_task(store.write(work))
    await began.wait()
    create.cancel()
    assert (await claim).is_processing


async def test_cancelled_claim_hands_back_what_it_gets(
    store: RecordingStore, new: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = await store.write(lambda s: creation.create(s, new()))
    has_claimed, is_cancelled, loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()

    def claim_slowly(*arguments: Any) -> Generation | None:
        claimed = claim(*arguments)
        loop.call_soon_threadsafe(has_claimed.set)
        is_cancelled.wait(60)
        return claimed

    claim = leases.claim
    monkeypatch.setattr(leases, "claim", claim_slowly)
    first = asyncio.create_task(store.claim("gone", ["sketch"], 3600.0, 0.0))
    await has_claimed.wait()
    first.cancel()
    monkeypatch.setattr(leases, "claim", claim)
    is_cancelled.set()
    second = await store.claim("w", ["sketch"], 30.0, 30.0)
    assert second is not None
    assert (second.id, second.attempt, second.max_attempts) == (created.id, 2, created.max_attempts + 1)


async def test_queued_calls_behind_locked_database_share_one_timeout(
    tmp_path: Path, open_database: Callable[..., Database]
) -> None:
    settings = StorageSettings(database_url=f"sqlite:///{tmp_path}/a.db", database_timeout_seconds=1.0)
    async with open_store(settings) as store:
        with open_database(settings.database_url).write() as session:
            session.connection()
            calls = [store.write(lambda s: s.connection()) for _ in range(10)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
        await store.write(lambda s: s.execute(update(Generation).values(progress=0.0)))
    reasons = [answer.reason for answer in answers if isinstance(answer, Unavailable)]
    # The first waits at the lock, and the second what is left of its time.
    assert 1 <= reasons.count("DATABASE_LOCKED") <= 2
    assert reasons.count("DATABASE_BUSY") == 10 - reasons.count("DATABASE_LOCKED")
