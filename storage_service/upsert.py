"""INSERT … ON CONFLICT, which SQLite and Postgres write alike and SQLAlchemy keeps apart."""

from __future__ import annotations

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from storage_service.models import Base


def insert_into(session: Session, model: type[Base]) -> postgresql.Insert:
    """The dialect's INSERT; both have the same `on_conflict_do_…` methods."""
    if session.get_bind().dialect.name == "sqlite":
        return sqlite.insert(model)  # type: ignore[return-value]
    return postgresql.insert(model)
