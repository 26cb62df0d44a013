"""INSERT … ON CONFLICT, which SQLite and Postgres write alike and SQLAlchemy keeps apart."""

from __future__ import annotations

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from storage_service.db.models import Base


def insert_into(dialect: str, model: type[Base]) -> postgresql.Insert:
    """The dialect's INSERT; both have the same `on_conflict_do_…` methods."""
    table = Base.metadata.tables[model.__tablename__]
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)  # type: ignore[return-value]


def dialect_of(session: Session) -> str:
    """What the statements that are built once for each database are known by."""
    return session.get_bind().dialect.name
