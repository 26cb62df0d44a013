"""The database for code on an event loop: work runs in threads, and waiting calls are notified of its changes."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from dgx_music.errors import NotFound, Unavailable
from service_runtime.health_thread import HealthThread
from service_runtime.validation import check_range, check_uuid
from storage_service.config import StorageSettings
from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.db.error_translation import RETRY_AFTER_SECONDS, UnwritableDatabase
from storage_service.db.models import Generation
from storage_service.db.write_probe import write_probe
from storage_service.domain import leases, lifecycle
from storage_service.domain.sharing.hand_back import hand_back
from storage_service.events.changes import Change, announce_later, get_recorded_changes
from storage_service.events.notifier import Notifier
from storage_service.events.postgres_announcer import PostgresAnnouncer
from storage_service.events.postgres_listener import listen
from storage_service.pooler import require_sessions

T = TypeVar("T")

MAX_WAIT_SECONDS = 30.0
"""The longest time that a claim may wait for work."""

SQLITE_THREADS = 1
"""SQLite has one writer at a time, and a thread that meets a lock sleeps for up to 100 ms between its tries. With one
thread, none of this process ever meets a lock of its own."""


class Store:
    """One database, used from one event loop. Call `open` before anything else and `close` at the end."""

    def __init__(self, settings: StorageSettings) -> None:
        self._timeout_seconds = settings.database_timeout_seconds
        self._database = Database(
            settings.resolved_database_url(),
            busy_timeout_seconds=settings.database_timeout_seconds,
            connections=settings.database_connections + 1,  # One for the health check.
        )
        threads = SQLITE_THREADS if self._database.is_sqlite else settings.database_connections
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="database")
        self._check_thread = HealthThread()
        self._write_error: UnwritableDatabase | None = None
        """The error with which the last write failed; None if the last one succeeded."""
        self._returning: set[asyncio.Future[Generation]] = set()
        """Hand-backs of what nobody has been told of."""
        self.notifier = Notifier()
        self._sender = uuid.uuid4().hex
        self._announcer = PostgresAnnouncer(self._database.engine, self._sender) if self.is_shared else None

    async def open(self) -> None:
        """Creates the schema of a new database.

        Raises FailedPrecondition if the schema is of another version, or for a pooler that shares sessions.
        """
        await self._run_in_thread(lambda: require_sessions(self._database))
        await self._run_in_thread(lambda: schema.ensure(self._database))

    @property
    def is_shared(self) -> bool:
        """Whether other servers may use the same database and announce their changes, which is so on Postgres."""
        return not self._database.is_sqlite

    async def listen(self) -> None:
        """Exchanges changes with other servers, so that those of each wake the calls that wait at any, until it is
        cancelled."""
        if self._announcer is None:
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._announcer.run())
            group.create_task(listen(self._database.engine, self._sender, self.notifier))

    def _publish(self, changes: list[Change]) -> None:
        self.notifier.publish(changes)
        if self._announcer is not None:
            self._announcer.add(changes)

    async def close(self) -> None:
        """Waits for running work to end and closes every connection."""
        await asyncio.gather(*self._returning, return_exceptions=True)
        await self._check_thread.stop()
        await asyncio.to_thread(self._threads.shutdown)
        if self._announcer is not None:
            await self._announcer.stop()
        self._database.dispose()

    async def check(self) -> None:
        """Raises Unavailable if the database can't be read or written, FailedPrecondition if its schema has changed.

        Has its own thread and connection, so that it does not wait for other calls. Writing is only tried if the last
        write has failed: until then, every write of a busy server is proof enough.
        """
        await self._check_thread.run(self._check)

    def _check(self) -> None:
        with self._database.read() as session:
            schema.check_session(session)
        if (error := self._write_error) is None:
            return
        try:
            with self._database.write() as session:
                write_probe(session)
        except Unavailable as unavailable:
            # A database that others write to at the moment may still be unwritable, or not: the next check tells.
            raise (unavailable if isinstance(unavailable, UnwritableDatabase) else error) from unavailable
        self._write_error = None

    async def read(self, work: Callable[[Session], T]) -> T:
        """Runs `work` in a thread with a session for reading and returns its result."""

        def run_in_session() -> T:
            with self._database.read() as session:
                return work(session)

        return await self._run_in_thread(run_in_session)

    def read_now(self, work: Callable[[Session], T]) -> T:
        """Runs `work` with a session for reading, for a caller on a thread of its own. Takes no turn of the others."""
        with self._database.read() as session:
            return work(session)

    async def write(self, work: Callable[[Session], T]) -> T:
        """Runs `work` in a thread in one transaction and returns its result.

        Once begun, the transaction completes and its changes are published even if the caller is cancelled meanwhile.
        """
        loop = asyncio.get_running_loop()

        def run_in_transaction() -> T:
            try:
                with self._database.write() as session:
                    announce_later(session)
                    result = work(session)
            except UnwritableDatabase as error:
                self._write_error = error
                loop.call_soon_threadsafe(self.notifier.fail_watchers, error)
                raise
            if changes := get_recorded_changes(session):
                self._write_error = None
                loop.call_soon_threadsafe(self._publish, changes)
            return result

        return await self._run_in_thread(run_in_transaction)

    async def claim(
        self, worker_id: str, model_names: Sequence[str], lease_seconds: float, wait_seconds: float
    ) -> Generation | None:
        """Does what `leases.claim` does. If no work is available, it waits for up to `wait_seconds` until there is.

        If the caller is cancelled meanwhile, nothing stays claimed.
        """
        check_range("wait_seconds", wait_seconds, 0, MAX_WAIT_SECONDS, "s")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_seconds
        with self.notifier.subscribe_to_work(model_names) as maybe_work:
            while not self.notifier.is_closed:
                woken_for = maybe_work.take()
                claiming = self.write(lambda s: leases.claim(s, worker_id, model_names, lease_seconds))
                try:
                    claimed = await self._or_hand_back(asyncio.ensure_future(claiming))
                except BaseException:
                    maybe_work.woken_for |= woken_for
                    raise
                if claimed is not None:
                    return claimed
                try:
                    async with asyncio.timeout_at(deadline):
                        await maybe_work.wait()
                except TimeoutError:
                    break
        return None

    async def _or_hand_back(self, claiming: asyncio.Future[Generation | None]) -> Generation | None:
        """Returns what is claimed. If the caller is cancelled, hands it back once the transaction has ended."""
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            claiming.add_done_callback(self._hand_back_result)
            raise

    def _hand_back_result(self, claiming: asyncio.Future[Generation | None]) -> None:
        if not claiming.cancelled() and claiming.exception() is None and (row := claiming.result()) is not None:
            self.hand_back_unanswered(row)

    def hand_back_unanswered(self, row: Generation) -> None:
        """Hands a generation back, in the background, whose claim has ended before its worker was told of it."""
        report = row.id, row.lease_token or "", "the worker had given up its claim"
        returning = asyncio.ensure_future(self.write(lambda s: hand_back(s, *report)))
        self._returning.add(returning)
        returning.add_done_callback(self._returning.discard)

    async def watch(self, generation_id: str) -> AsyncGenerator[Generation, None]:
        """Yields the generation now and after each change, until it has finished or is deleted.

        Raises Unavailable if the server shuts down, and UnwritableDatabase if a write, even one for another generation,
        finds that the disk is full or fails: this one could not change either.
        """
        last_yielded: dict[str, Any] | None = None
        with self.notifier.subscribe_to_changes(check_uuid("id", generation_id)) as changed:
            while True:
                changed.clear()
                try:
                    generation = await self.read(lambda s: lifecycle.get(s, generation_id))
                except NotFound:
                    if last_yielded is not None:
                        return
                    raise
                # A wake-up need not mean a change: if changes may have been missed, all watchers are woken.
                if (state := generation.to_dict()) != last_yielded:
                    last_yielded = state
                    yield generation
                if generation.is_finished:
                    return
                if not self.notifier.is_closed:
                    await changed.wait()
                if self.notifier.is_closed:
                    raise Unavailable(
                        "the storage server is shutting down; watch again when it is back",
                        reason="SHUTTING_DOWN",
                        retry_after_seconds=RETRY_AFTER_SECONDS,
                    )
                if changed.error is not None:
                    raise changed.error

    async def _run_in_thread(self, work: Callable[[], T]) -> T:
        submitted_at = time.monotonic()

        def run() -> T:
            # Calls queue up behind a locked database. One that has waited for the whole timeout must not wait again.
            if time.monotonic() - submitted_at > self._timeout_seconds:
                raise Unavailable(
                    "the database is too busy; try again later",
                    reason="DATABASE_BUSY",
                    retry_after_seconds=RETRY_AFTER_SECONDS,
                )
            return work()

        return await asyncio.get_running_loop().run_in_executor(self._threads, copy_context().run, run)
