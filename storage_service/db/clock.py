"""The database's clock, as SQL, and the column type that holds its times.

Several servers may share one database, and their clocks differ: every time that is stored or compared is the
database's. SQLite runs inside the process, so its clock is this machine's; it is read through a function of ours
because SQLite's own `strftime` stops at milliseconds, and rows are ordered by when they were created.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, DateTime, literal
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from storage_service.db.sqlite import sqlite3


def _as_text(moment: datetime) -> str:
    """As SQLAlchemy writes a DateTime into SQLite, 2026-12-31 23:59:59.999999: text that sorts by time."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


class _SqliteMoment(sqlite.DATETIME):
    """Text in and out by one call each: a list of generations reads five of them a row."""

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], str | None]:
        return lambda value: None if value is None else _as_text(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[str | None], datetime | None]:
        return lambda value: None if value is None else datetime.fromisoformat(value + "+00:00")


class _PostgresMoment(postgresql.TIMESTAMP):
    """What psycopg gives is in the session's zone."""

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[datetime | None], datetime | None]:
        return lambda value: None if value is None else value.astimezone(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment with its zone, always UTC in Python; naive UTC text in SQLite, TIMESTAMPTZ in Postgres."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[datetime]:
        own: TypeEngine[datetime] = _PostgresMoment(timezone=True)
        if dialect.name == "sqlite":
            own = _SqliteMoment()  # type: ignore[no-untyped-call]
        return dialect.type_descriptor(own)


class _Later(FunctionElement[datetime]):
    """The database's time when the statement runs, and some seconds on."""

    name = "dgx_now"
    type = UtcDateTime()
    inherit_cache = True


def now() -> ColumnElement[datetime]:
    """The database's time, in SQL."""
    return later(0.0)


def later(seconds: float | ColumnElement[int]) -> ColumnElement[datetime]:
    """The database's time in so many seconds, in SQL."""
    return _Later(literal(seconds) if isinstance(seconds, float) else seconds)


@compiles(_Later, "sqlite")
def _sqlite_later(element: _Later, compiler: SQLCompiler, **options: Any) -> str:
    # As a subquery it is asked once a statement and not once a row, and an index can be searched by it.
    return f"(SELECT dgx_now({compiler.process(element.clauses, **options)}))"


@compiles(_Later, "postgresql")
def _postgres_later(element: _Later, compiler: SQLCompiler, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    return f"(statement_timestamp() + make_interval(secs => CAST({seconds} AS DOUBLE PRECISION)))"


def _sqlite_now(seconds: float) -> str:
    return _as_text(datetime.now(UTC) + timedelta(seconds=seconds))


def add_clock(connection: sqlite3.Connection) -> None:
    """Gives a SQLite connection the function that `now` and `later` compile to."""
    connection.create_function("dgx_now", 1, _sqlite_now)
