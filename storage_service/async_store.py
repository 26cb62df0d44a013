"""The database for code on an event loop: work runs in threads, and what it changed is told to those who wait."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from dgx_music.errors import NotFound, Unavailable
from service_runtime.validation import check_range, check_uuid
from storage_service.config import StorageSettings
from storage_service.db import schema
from storage_service.db.database import RETRY_AFTER_SECONDS, Database
from storage_service.db.models import Generation
from storage_service.domain import leases, lifecycle
from storage_service.events.changes import get_recorded_changes, set_sender
from storage_service.events.notifier import Notifier
from storage_service.events.postgres_listener import listen

T = TypeVar("T")

MAX_WAIT_SECONDS = 30.0
"""How long a claim may wait for work."""

POSTGRES_THREADS = 8
SQLITE_THREADS = 1
"""SQLite takes one writer at a time, and who meets a lock sleeps up to 100 ms between looks: with one thread, nobody
of this process meets one."""


class Store:
    """One database. Belongs to one event loop; `open` before anything else, `close` at the end."""

    def __init__(self, settings: StorageSettings) -> None:
        self._timeout_seconds = settings.database_timeout_seconds
        self._database = Database(
            settings.resolved_database_url(),
            busy_timeout_seconds=settings.database_timeout_seconds,
            connections=POSTGRES_THREADS,
        )
        threads = SQLITE_THREADS if self._database.is_sqlite else POSTGRES_THREADS
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="database")
        self.notifier = Notifier()
        self._sender = uuid.uuid4().hex

    async def open(self) -> None:
        """Gives a new database its schema. FailedPrecondition where the schema is not this version's."""
        await self._in_thread(lambda: schema.ensure(self._database))

    @property
    def is_shared(self) -> bool:
        """Whether other servers may work on the same database, and tell of it: on Postgres."""
        return not self._database.is_sqlite

    async def listen(self) -> None:
        """Tells those who wait here of what other servers change, for good; until it is cancelled."""
        await listen(self._database.engine, self._sender, self.notifier)

    async def close(self) -> None:
        """Waits for the work that runs and closes every connection."""
        await asyncio.to_thread(self._threads.shutdown)
        self._database.dispose()

    async def read(self, work: Callable[[Session], T]) -> T:
        """What `work` gives, run in a thread on a session for reading."""

        def reading() -> T:
            with self._database.read() as session:
                return work(session)

        return await self._in_thread(reading)

    async def write(self, work: Callable[[Session], T]) -> T:
        """What `work` gives, run in a thread in one transaction. Once begun it ends, and is told, even if the caller
        has gone meanwhile."""
        loop = asyncio.get_running_loop()

        def writing() -> T:
            with self._database.write() as session:
                set_sender(session, self._sender)
                result = work(session)
            if changes := get_recorded_changes(session):
                loop.call_soon_threadsafe(self.notifier.publish, changes)
            return result

        return await self._in_thread(writing)

    async def claim(
        self, worker_id: str, model_names: Sequence[str], lease_seconds: float, wait_seconds: float
    ) -> Generation | None:
        """As `leases.claim`, and where there is nothing to do, again whenever there may be, for `wait_seconds`."""
        check_range("wait_seconds", wait_seconds, 0, MAX_WAIT_SECONDS, "s")
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + wait_seconds
        with self.notifier.subscribe_to_work(model_names) as maybe_work:
            while not self.notifier.is_closed:
                maybe_work.clear()
                claimed = await self.write(lambda s: leases.claim(s, worker_id, model_names, lease_seconds))
                if claimed is not None:
                    return claimed
                try:
                    async with asyncio.timeout_at(give_up_at):
                        await maybe_work.wait()
                except TimeoutError:
                    break
        return None

    async def watch(self, generation_id: str) -> AsyncGenerator[Generation, None]:
        """The generation now and after each change, until it is finished or gone. Unavailable when the server ends."""
        told: dict[str, Any] | None = None
        with self.notifier.subscribe_to_changes(check_uuid("id", generation_id)) as changed:
            while True:
                changed.clear()
                try:
                    generation = await self.read(lambda s: lifecycle.get(s, generation_id))
                except NotFound:
                    if told is not None:
                        return
                    raise
                # Woken is not changed: where changes may have been missed, all are woken.
                if (state := generation.to_dict()) != told:
                    told = state
                    yield generation
                if generation.is_finished:
                    return
                if not self.notifier.is_closed:
                    await changed.wait()
                if self.notifier.is_closed:
                    raise Unavailable(
                        "the storage server is ending; watch again when it is back",
                        reason="SHUTTING_DOWN",
                        retry_after_seconds=RETRY_AFTER_SECONDS,
                    )

    async def _in_thread(self, work: Callable[[], T]) -> T:
        asked_at = time.monotonic()

        def run() -> T:
            # Behind a locked database calls pile up: each has waited its time when its turn comes, and need not again.
            if time.monotonic() - asked_at > self._timeout_seconds:
                raise Unavailable(
                    "the database is too busy; try again",
                    reason="DATABASE_BUSY",
                    retry_after_seconds=RETRY_AFTER_SECONDS,
                )
            return work()

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)
