"""The database's clock, as SQL, and the column type that holds its times.

Several servers may share one database, and their clocks differ: every time that is stored or compared is the
database's. SQLite runs inside the process, so its clock is this machine's; it is read through a function of ours
because SQLite's own `strftime` stops at milliseconds, and rows are ordered by when they were created.
"""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, DateTime, literal
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

_SQLITE_FORMAT = "%Y-%m-%d %H:%M:%S.%f"
"""As SQLAlchemy writes a DateTime into SQLite: text that sorts by time."""


class UtcDateTime(TypeDecorator[datetime]):
    """A moment with its zone, always UTC in Python; naive UTC text in SQLite, TIMESTAMPTZ in Postgres."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


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
    return f"dgx_now({compiler.process(element.clauses, **options)})"


@compiles(_Later, "postgresql")
def _postgres_later(element: _Later, compiler: SQLCompiler, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    return f"(statement_timestamp() + make_interval(secs => CAST({seconds} AS DOUBLE PRECISION)))"


def _sqlite_now(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime(_SQLITE_FORMAT)


def add_clock(connection: sqlite3.Connection) -> None:
    """Gives a SQLite connection the function that `now` and `later` compile to."""
    connection.create_function("dgx_now", 1, _sqlite_now)
