"""Real databases whose clock a test sets, so that leases and retry delays end without sleeping.

Storage's code and statements are unchanged. On SQLite the clock is the function `dgx_now` (see db/clock.py),
which is replaced on the connection. On Postgres it is `statement_timestamp`, which the search path resolves to a
replacement before Postgres's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.types.string import TextLoader
from sqlalchemy import event

from storage_service.db import schema
from storage_service.db.database import Database
from tests.support.postgres import scratch_database

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

TABLES = "generations", "prompts", "generation_counts", "generation_times", "prompt_counts"

LOCK_PATIENCE_SECONDS = 60.0
"""The lock timeout. Locks are held only briefly, but the machine may be busy."""

_CLOCK = """
    CREATE SCHEMA clock;
    CREATE TABLE clock.moment (at TIMESTAMPTZ NOT NULL);
    INSERT INTO clock.moment VALUES (now());
    CREATE FUNCTION clock.statement_timestamp() RETURNS TIMESTAMPTZ LANGUAGE sql STABLE
        AS 'SELECT at FROM clock.moment';
"""


class ClockedDatabase:
    """An empty migrated database whose clock is at START."""

    database: Database

    def rows(self, query: str) -> Sequence[Sequence[Any]]:
        """Returns committed rows, read without storage's code."""
        raise NotImplementedError

    def set_clock(self, moment: datetime) -> None:
        """Sets the database's clock."""
        raise NotImplementedError

    def clear(self) -> None:
        """Deletes all rows and sets the clock to START."""
        for table in TABLES:
            self.rows(f"DELETE FROM {table}")
        self._clear_text_index()
        self.set_clock(START)

    def _clear_text_index(self) -> None:
        """Empties what no trigger empties."""


class ClockedSqlite(ClockedDatabase):
    """In memory, because a disk would take most of the time of a thousand examples."""

    def __init__(self, database: Database) -> None:
        self.database = database
        event.listen(self.database.engine, "connect", self._prepare)
        schema.upgrade_database(self.database)
        self.clear()

    def rows(self, query: str) -> Sequence[Sequence[Any]]:
        return list(self._connection.execute(query))

    def set_clock(self, moment: datetime) -> None:
        self._moment = moment

    def _clear_text_index(self) -> None:
        self.rows("INSERT INTO prompt_search(prompt_search) VALUES ('delete-all')")

    def _prepare(self, connection: Any, _record: object) -> None:
        self._connection = connection
        self._moment = START
        connection.create_function("dgx_now", 1, self._now)

    def _now(self, seconds: float) -> str:
        return f"{self._moment + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S.%f}"


class ClockedPostgres(ClockedDatabase):
    """On the Postgres server of this test run."""

    def __init__(self, database: Database, observer: psycopg.Connection[Any]) -> None:
        self.database = database
        self._observer = observer
        schema.upgrade_database(self.database)
        self.clear()

    def rows(self, query: str) -> Sequence[Sequence[Any]]:
        cursor = self._observer.execute(query)
        return cursor.fetchall() if cursor.description else []

    def set_clock(self, moment: datetime) -> None:
        self._observer.execute("UPDATE clock.moment SET at = %s", [moment])


@contextmanager
def clocked_postgres(server: psycopg.Connection[Any], connections: int = 5) -> Iterator[ClockedPostgres]:
    """Yields a separate database on the server."""
    with scratch_database(server) as url, psycopg.connect(url, autocommit=True) as observer:
        server.execute(f"ALTER DATABASE {observer.info.dbname} SET search_path = public, clock, pg_catalog")
        observer.adapters.register_loader("uuid", TextLoader)  # Ids are text, as in the calls.
        observer.execute(_CLOCK)
        with Database(url, busy_timeout_seconds=LOCK_PATIENCE_SECONDS, connections=connections) as database:
            yield ClockedPostgres(database, observer)
