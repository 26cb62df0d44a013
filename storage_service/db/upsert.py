"""INSERT … ON CONFLICT, which SQLite and Postgres share but SQLAlchemy offers separately for each."""

from __future__ import annotations

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from storage_service.db.models import Base


def insert_into(dialect: str, model: type[Base]) -> postgresql.Insert:
    """Returns the dialect's INSERT. Both dialects have the same `on_conflict_do_…` methods."""
    table = Base.metadata.tables[model.__tablename__]
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)  # type: ignore[return-value]


def dialect_name(session: Session) -> str:
    """Returns "sqlite" or "postgresql", the key of statements that are built once per dialect."""
    return session.get_bind().dialect.name
