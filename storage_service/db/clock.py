"""The database's clock as SQL expressions, and the column type of its timestamps.

Several servers may share one database, and their clocks differ: every time that is stored or compared is the
database's. SQLite runs inside the process, so its clock is this machine's. It is read through a function registered
from Python because SQLite's own `strftime` stops at milliseconds, and rows are ordered by when they were created.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, DateTime, case, literal
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from storage_service.db.sqlite import sqlite3


def _format_utc(value: datetime) -> str:
    """Formats as SQLAlchemy does for SQLite, 2026-12-31 23:59:59.999999: text that sorts by time."""
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


class _SqliteUtcDateTime(sqlite.DATETIME):
    """Converts with a single call in each direction: a list of generations reads five timestamps per row."""

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], str | None]:
        return lambda value: None if value is None else _format_utc(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[str | None], datetime | None]:
        return lambda value: None if value is None else datetime.fromisoformat(value + "+00:00")


class _PostgresUtcDateTime(postgresql.TIMESTAMP):
    """Converts to UTC: psycopg returns timestamps in the session's time zone."""

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[datetime | None], datetime | None]:
        return lambda value: None if value is None else value.astimezone(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """A timestamp that is always in UTC: aware in Python, naive text in SQLite, TIMESTAMPTZ in Postgres."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[datetime]:
        native: TypeEngine[datetime] = _PostgresUtcDateTime(timezone=True)
        if dialect.name == "sqlite":
            native = _SqliteUtcDateTime()  # type: ignore[no-untyped-call]
        return dialect.type_descriptor(native)


class _NowPlus(FunctionElement[datetime]):
    """The database's time when the statement runs, plus a number of seconds."""

    name = "dgx_now"
    type = UtcDateTime()
    inherit_cache = True


def now() -> ColumnElement[datetime]:
    """Returns the database's current time as an SQL expression."""
    return now_plus(0.0)


def now_plus(seconds: float | ColumnElement[int]) -> ColumnElement[datetime]:
    """Returns the database's current time plus `seconds`, which may be negative, as an SQL expression."""
    return _NowPlus(literal(seconds) if isinstance(seconds, float) else seconds)


def not_before(earlier: ColumnElement[datetime] | InstrumentedAttribute[datetime]) -> ColumnElement[datetime]:
    """Returns the database's current time, or the earlier one if the clock has been set back since."""
    return case((earlier > now(), earlier), else_=now())


@compiles(_NowPlus, "sqlite")
def _compile_for_sqlite(element: _NowPlus, compiler: SQLCompiler, **options: Any) -> str:
    # A subquery is evaluated once per statement instead of once per row, and an index can be searched with it.
    return f"(SELECT dgx_now({compiler.process(element.clauses, **options)}))"


@compiles(_NowPlus, "postgresql")
def _compile_for_postgres(element: _NowPlus, compiler: SQLCompiler, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    return f"(statement_timestamp() + make_interval(secs => CAST({seconds} AS DOUBLE PRECISION)))"


def _sqlite_now(seconds: float) -> str:
    return _format_utc(datetime.now(UTC) + timedelta(seconds=seconds))


def register_clock(connection: sqlite3.Connection) -> None:
    """Registers the function that `now` and `now_plus` compile to on a SQLite connection."""
    connection.create_function("dgx_now", 1, _sqlite_now)
