"""Announces to the other servers what this one has committed on the same Postgres database.

A NOTIFY that is part of the transaction would be simpler, but Postgres commits such transactions one at a time, in the
whole database: each holds a lock until it is durable, with a synchronous standby until that has answered. Here, one
NOTIFY without a durable commit of its own announces all that was committed while the previous one was on its way.

What a server has committed but not announced when it is killed is found by the others: each says regularly that it is
alive, and when it no longer does, all calls that wait look for changes themselves (`postgres_listener`). So they do if
announcements were given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from sqlalchemy import Engine

from service_runtime.observability.logging import get_logger
from storage_service.events.changes import ANNOUNCE, Change, Signal, encode_changes, encode_signal
from storage_service.events.notification_connection import RECONNECT_DELAY_SECONDS, connect

log = get_logger(__name__)

APPLICATION_NAME = "dgx-music announcer"
"""The name of the connection in pg_stat_activity."""

HEARTBEAT_SECONDS = 2.0
"""The longest time between two announcements of a server."""

_MAX_WAITING = 10_000
"""How many changes wait at most, while the database can't be reached. Beyond that, the others are told that some are
lost, and look for themselves."""

_BATCH = 1000
"""How many changes one NOTIFY announces at most."""

_FAREWELL_SECONDS = 2.0


class PostgresAnnouncer:
    """Announces changes in the order in which they are added. Belongs to one event loop."""

    def __init__(self, engine: Engine, sender: str) -> None:
        self._engine, self._sender = engine, sender
        self._waiting: dict[tuple[str, bool], Change] = {}
        """The last change of each generation, and that by which it could be claimed."""
        self._has_lost_some = False
        self._added = asyncio.Event()

    def add(self, changes: Iterable[Change]) -> None:
        """Announces these committed changes soon."""
        for change in changes:
            key = change.generation_id, change.is_claimable
            self._waiting.pop(key, None)
            self._waiting[key] = change
        if len(self._waiting) > _MAX_WAITING:
            self._waiting.clear()
            self._has_lost_some = True
        self._added.set()

    async def run(self) -> None:
        """Announces until it is cancelled, and whenever the database can be reached."""
        import psycopg

        is_failing = False
        while True:
            try:
                async with await connect(self._engine, APPLICATION_NAME) as connection:
                    await connection.execute("SET synchronous_commit = off")
                    while True:
                        await self._announce(connection)
                        is_failing = False
                        with suppress(TimeoutError):
                            async with asyncio.timeout(HEARTBEAT_SECONDS):
                                await self._added.wait()
            except psycopg.Error as error:
                if not is_failing:  # Logged once, however long it lasts.
                    log.warning("announcing_failed", error=str(error).partition("\n")[0])
                is_failing = True
            await asyncio.sleep(RECONNECT_DELAY_SECONDS)

    async def stop(self) -> None:
        """Announces the rest, and that this server has stopped. To be called after `run` has ended."""
        import psycopg

        with suppress(psycopg.Error, TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS), await connect(self._engine, APPLICATION_NAME) as connection:
                while self._waiting:
                    await self._announce(connection)
                await self._announce(connection, Signal.STOPPED)

    async def _announce(self, connection: object, signal: Signal = Signal.ALIVE) -> None:
        """Announces what waits, which stays if that fails, and a signal."""
        self._added.clear()
        batch = dict(list(self._waiting.items())[:_BATCH])
        signals = [Signal.LOST, signal] if self._has_lost_some else [signal]
        payloads = encode_changes(self._sender, batch.values())
        payloads += [encode_signal(self._sender, one) for one in signals]
        await connection.execute(ANNOUNCE, (payloads,))  # type: ignore[attr-defined]
        if Signal.LOST in signals:
            self._has_lost_some = False
        for key, change in batch.items():
            if self._waiting.get(key) is change:
                del self._waiting[key]
        if self._waiting:
            self._added.set()
