"""Splits long reads of a table into ranges of its key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import InstrumentedAttribute

from storage_service.db.database import Database

BATCH_ROWS = 5000

Key = TypeVar("Key", str, int)


def iter_row_ranges(database: Database, key: InstrumentedAttribute[Key]) -> Iterator[ColumnElement[bool]]:
    """Yields conditions that each select the next BATCH_ROWS rows by `key`."""
    last: Key | None = None
    while True:
        beyond: ColumnElement[bool] = key.is_not(None) if last is None else key > last
        batch = select(key.label("key")).where(beyond).order_by(key).limit(BATCH_ROWS).subquery()
        with database.read() as session:  # Not max(): Postgres has it for UUIDs only from 18 on.
            end = session.scalar(select(batch.c.key).order_by(batch.c.key.desc()).limit(1))
        if end is None:
            return
        yield and_(beyond, key <= end)
        last = end
