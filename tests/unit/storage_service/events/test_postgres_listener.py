"""Several servers on one Postgres: what one changes, those who wait at another learn at once."""

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


async def soon(awaitable: Any) -> Any:
    """What comes without a sweep: nobody sweeps in these tests."""
    return await asyncio.wait_for(awaitable, 60)


class SeenNotifier(Notifier):
    """Keeps what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.published: list[Change] = []
        self.told = asyncio.Event()
        self.woken = asyncio.Event()

    def publish(self, changes: Any) -> None:
        changes = list(changes)
        self.published += changes
        self.told.set()
        super().publish(changes)

    def wake_all(self) -> None:
        super().wake_all()
        self.woken.set()

    async def until_told_of(self, *ids: str) -> None:
        while set(ids) - {change.generation_id for change in self.published}:
            self.told.clear()
            await soon(self.told.wait())


@asynccontextmanager
async def opened(settings: StorageSettings) -> AsyncIterator[tuple[Store, SeenNotifier]]:
    """A store that listens."""
    store = Store(settings)
    store.notifier = notifier = SeenNotifier()
    try:
        await store.open()
        listening = asyncio.create_task(store.listen())
        try:
            await soon(notifier.woken.wait())
            yield store, notifier
        finally:
            listening.cancel()
            await asyncio.wait([listening])
    finally:
        await store.close()


@pytest.fixture
async def one(settings: StorageSettings) -> AsyncIterator[Store]:
    async with opened(settings) as (store, _):
        yield store


@pytest.fixture
async def other(settings: StorageSettings) -> AsyncIterator[Store]:
    async with opened(settings) as (store, _):
        yield store


async def test_a_watcher_sees_what_was_done_through_another_server(one: Store, other: Store, new: New) -> None:
    created = await one.write(lambda s: creation.create(s, new()))
    snapshots = one.watch(created.id)
    assert (await anext(snapshots)).is_pending
    claimed = await other.claim("w", ["sketch"], 30.0, 0.0)
    assert claimed is not None
    assert (await soon(anext(snapshots))).is_processing
    token = claimed.lease_token or ""
    await other.write(lambda s: leases.renew(s, created.id, token, 30.0, None, 0.5))
    assert (await soon(anext(snapshots))).progress == 0.5
    completion = leases.Completion("a.wav", 10, 1.0, "", {})
    await other.write(lambda s: leases.complete(s, created.id, token, completion))
    assert (await soon(anext(snapshots))).is_complete
    with pytest.raises(StopAsyncIteration):
        await anext(snapshots)


async def test_a_create_wakes_a_claim_that_waits_at_another_server(one: Store, other: Store, new: New) -> None:
    claim = asyncio.create_task(one.claim("w", ["sketch"], 30.0, 30.0))
    created = await other.write(lambda s: creation.create(s, new()))
    assert (await soon(claim)).id == created.id


@pytest.mark.usefixtures("library_closed")
async def test_the_librarys_changes_are_heard(one: Store, url: str) -> None:
    claim = asyncio.create_task(one.claim("w", ["m"], 30.0, 30.0))
    await asyncio.to_thread(library.init_db, url)

    def make() -> str:
        with library.get_session() as session:
            first = library.create_generation(session, "p", "m", 1.0, 32000, 2, "a.wav").id
            session.commit()
            library.create_generation(session, "p", "other", 1.0, 32000, 2, "b.wav")
            return first

    first = await asyncio.to_thread(make)
    assert (await soon(claim)).id == first
    snapshots = one.watch(first)
    await anext(snapshots)

    def end() -> None:
        with library.get_session() as session:
            library.update_generation_status(session, first, GenerationStatus.FAILED, "no luck")

    await asyncio.to_thread(end)
    assert (await soon(anext(snapshots))).is_failed


async def test_nobody_hears_of_what_was_rolled_back_nor_twice_of_his_own(settings: StorageSettings, new: New) -> None:
    async with opened(settings) as (one, heard_by_one), opened(settings) as (other, heard_by_other):

        def make_in_vain(session: Any) -> None:
            creation.create(session, new(model_name="in vain"))
            raise LookupError

        with pytest.raises(LookupError):
            await one.write(make_in_vain)
        created = [await store.write(lambda s: creation.create(s, new())) for store in (one, other)]
        await soon(one.claim("w", ["sketch"], 30.0, 30.0))
        last = [await store.write(lambda s: creation.create(s, new(model_name="last"))) for store in (one, other)]
        for notifier in (heard_by_one, heard_by_other):
            await notifier.until_told_of(*(row.id for row in last))
            made = [change.generation_id for change in notifier.published if change.is_claimable]
            assert sorted(made) == sorted(row.id for row in created + last)
            assert {change.model_name for change in notifier.published} == {"sketch", "last"}


async def test_a_lost_connection_is_made_anew_and_all_look_again(settings: StorageSettings, new: New, url: str) -> None:
    async with opened(settings) as (store, notifier):
        created = await store.write(lambda s: creation.create(s, new()))
        snapshots = store.watch(created.id)
        await anext(snapshots)
        notifier.woken.clear()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("UPDATE generations SET progress = 0.25")  # As what is committed meanwhile: unheard.
            (pid,) = connection.execute(LISTENERS).fetchone() or (0,)
            connection.execute("SELECT pg_terminate_backend(%s)", [pid])
            assert (await soon(anext(snapshots))).progress == 0.25
            await soon(notifier.woken.wait())
            connection.execute("UPDATE generations SET progress = 0.5")
            connection.execute(f"NOTIFY {CHANNEL}, 'words of another version'")
            assert (await soon(anext(snapshots))).progress == 0.5
            assert len(connection.execute(LISTENERS).fetchall()) == 1
        await snapshots.aclose()


async def test_a_batch_is_announced_whole(one: Store, settings: StorageSettings, new: New) -> None:
    async with opened(settings) as (_, heard):
        await one.write(lambda s: [creation.create(s, new()) for _ in range(100)] and None)
        last = await one.write(lambda s: lifecycle.cancel(s, creation.create(s, new()).id))
        await heard.until_told_of(last.id)
        assert len({change.generation_id for change in heard.published}) == 101


async def test_what_is_announced_fits_whatever_the_model_is_called(one: Store, other: Store, new: New) -> None:
    name = "\N{MUSICAL SYMBOL G CLEF}" * MAX_NAME_CHARACTERS
    claim = asyncio.create_task(one.claim("w", [name], 30.0, 30.0))
    created = await other.write(lambda s: creation.create(s, new(model_name=name)))
    assert (await soon(claim)).id == created.id
