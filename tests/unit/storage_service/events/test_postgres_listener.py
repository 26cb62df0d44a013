"""Several servers on one Postgres database: a change by one wakes the calls that wait at another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

import storage_service as library
from storage_service.async_store import Store
from storage_service.config import StorageSettings
from storage_service.domain import creation, leases, lifecycle
from storage_service.domain.creation import NewGeneration
from storage_service.domain.request_validation import MAX_NAME_CHARACTERS
from storage_service.events.changes import CHANNEL, Change
from storage_service.events.notifier import Notifier
from storage_service.events.postgres_listener import APPLICATION_NAME
from storage_service.states import GenerationStatus

pytestmark = pytest.mark.parametrize("url", ["postgres"], indirect=True)

New = Callable[..., NewGeneration]
LISTENERS = f"SELECT pid FROM pg_stat_activity WHERE application_name = '{APPLICATION_NAME}'"


async def within_timeout(awaitable: Any) -> Any:
    """Returns the result, which has to come without a sweep, since nothing sweeps in these tests."""
    return await asyncio.wait_for(awaitable, 60)


class RecordingNotifier(Notifier):
    """Records the changes that were published."""

    def __init__(self) -> None:
        super().__init__()
        self.published: list[Change] = []
        self.is_notified = asyncio.Event()
        self.woken = asyncio.Event()

    def publish(self, changes: Any) -> None:
        changes = list(changes)
        self.published += changes
        self.is_notified.set()
        super().publish(changes)

    def wake_all(self) -> None:
        super().wake_all()
        self.woken.set()

    async def wait_until_published(self, *ids: str) -> None:
        while set(ids) - {change.generation_id for change in self.published}:
            self.is_notified.clear()
            await within_timeout(self.is_notified.wait())


@asynccontextmanager
async def open_store(settings: StorageSettings) -> AsyncIterator[tuple[Store, RecordingNotifier]]:
    """Opens a store that listens to other servers."""
    store = Store(settings)
    store.notifier = notifier = RecordingNotifier()
    try:
        await store.open()
        listening = asyncio.create_task(store.listen())
        try:
            await within_timeout(notifier.woken.wait())
            yield store, notifier
        finally:
            listening.cancel()
            await asyncio.wait([listening])
    finally:
        await store.close()


@pytest.fixture
async def one(settings: StorageSettings) -> AsyncIterator[Store]:
    async with open_store(settings) as (store, _):
        yield store


@pytest.fixture
async def other(settings: StorageSettings) -> AsyncIterator[Store]:
    async with open_store(settings) as (store, _):
        yield store


async def test_watcher_receives_changes_made_through_another_server(one: Store, other: Store, new: New) -> None:
    created = await one.write(lambda s: creation.create(s, new()))
    snapshots = one.watch(created.id)
    assert (await anext(snapshots)).is_pending
    claimed = await other.claim("w", ["sketch"], 30.0, 0.0)
    assert claimed is not None
    assert (await within_timeout(anext(snapshots))).is_processing
    token = claimed.lease_token or ""
    await other.write(lambda s: leases.renew(s, created.id, token, 30.0, None, 0.5))
    assert (await within_timeout(anext(snapshots))).progress == 0.5
    completion = leases.Completion("a.wav", 10, 1.0, "", {})
    await other.write(lambda s: leases.complete(s, created.id, token, completion))
    assert (await within_timeout(anext(snapshots))).is_complete
    with pytest.raises(StopAsyncIteration):
        await anext(snapshots)


async def test_create_wakes_claim_that_waits_at_another_server(one: Store, other: Store, new: New) -> None:
    claim = asyncio.create_task(one.claim("w", ["sketch"], 30.0, 30.0))
    created = await other.write(lambda s: creation.create(s, new()))
    assert (await within_timeout(claim)).id == created.id


@pytest.mark.usefixtures("library_closed")
async def test_changes_by_the_library_are_received(one: Store, url: str) -> None:
    claim = asyncio.create_task(one.claim("w", ["m"], 30.0, 30.0))
    await asyncio.to_thread(library.init_db, url)

    def create_two() -> str:
        with library.get_session() as session:
            first = library.create_generation(session, "p", "m", 1.0, 32000, 2, "a.wav").id
            session.commit()
            library.create_generation(session, "p", "other", 1.0, 32000, 2, "b.wav")
            return first

    first = await asyncio.to_thread(create_two)
    assert (await within_timeout(claim)).id == first
    snapshots = one.watch(first)
    await anext(snapshots)

    def fail_first() -> None:
        with library.get_session() as session:
            library.update_generation_status(session, first, GenerationStatus.FAILED, "no luck")

    await asyncio.to_thread(fail_first)
    assert (await within_timeout(anext(snapshots))).is_failed


async def test_rolled_back_changes_are_not_announced_and_own_changes_not_repeated(
    settings: StorageSettings, new: New
) -> None:
    async with open_store(settings) as (one, notifier_of_one), open_store(settings) as (other, notifier_of_other):

        def create_and_fail(session: Any) -> None:
            creation.create(session, new(model_name="rolled back"))
            raise LookupError

        with pytest.raises(LookupError):
            await one.write(create_and_fail)
        created = [await store.write(lambda s: creation.create(s, new())) for store in (one, other)]
        await within_timeout(one.claim("w", ["sketch"], 30.0, 30.0))
        last = [await store.write(lambda s: creation.create(s, new(model_name="last"))) for store in (one, other)]
        for notifier in (notifier_of_one, notifier_of_other):
            await notifier.wait_until_published(*(row.id for row in last))
            created_ids = [change.generation_id for change in notifier.published if change.is_claimable]
            assert sorted(created_ids) == sorted(row.id for row in created + last)
            assert {change.model_name for change in notifier.published} == {"sketch", "last"}


async def test_lost_connection_is_restored_and_wakes_all(settings: StorageSettings, new: New, url: str) -> None:
    async with open_store(settings) as (store, notifier):
        created = await store.write(lambda s: creation.create(s, new()))
        snapshots = store.watch(created.id)
        await anext(snapshots)
        notifier.woken.clear()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "UPDATE generations SET progress = 0.25"
            )  # Not announced, like what is committed while the connection is lost.
            (pid,) = connection.execute(LISTENERS).fetchone() or (0,)
            connection.execute("SELECT pg_terminate_backend(%s)", [pid])
            assert (await within_timeout(anext(snapshots))).progress == 0.25
            await within_timeout(notifier.woken.wait())
            connection.execute("UPDATE generations SET progress = 0.5")
            connection.execute(f"NOTIFY {CHANNEL}, 'payload of another version'")
            assert (await within_timeout(anext(snapshots))).progress == 0.5
            assert len(connection.execute(LISTENERS).fetchall()) == 1
        await snapshots.aclose()


async def test_every_change_of_a_batch_is_announced(one: Store, settings: StorageSettings, new: New) -> None:
    async with open_store(settings) as (_, notifier):
        await one.write(lambda s: [creation.create(s, new()) for _ in range(100)] and None)
        last = await one.write(lambda s: lifecycle.cancel(s, creation.create(s, new()).id))
        await notifier.wait_until_published(last.id)
        assert len({change.generation_id for change in notifier.published}) == 101


async def test_announcement_fits_with_the_longest_model_name(one: Store, other: Store, new: New) -> None:
    name = "\N{MUSICAL SYMBOL G CLEF}" * MAX_NAME_CHARACTERS
    claim = asyncio.create_task(one.claim("w", [name], 30.0, 30.0))
    created = await other.write(lambda s: creation.create(s, new(model_name=name)))
    assert (await within_timeout(claim)).id == created.id
