"""Recognizes a connection pooler between a server and Postgres that takes turns with sessions, such as PgBouncer with
pool_mode=transaction: notifications do not arrive through it, and settings of a session become those of another."""

from __future__ import annotations

from sqlalchemy import Connection, text

from dgx_music.errors import FailedPrecondition
from storage_service.db.database import Database

_ATTEMPTS = 3
"""A busy pooler may give the two connections different sessions by chance."""


def require_sessions(database: Database) -> None:
    """Raises FailedPrecondition if connections to Postgres do not keep their sessions."""
    if database.is_sqlite:
        return
    with database.outside_transactions() as first:
        process_id = _read_process_id(first)
        if _announced_process_id(first) == process_id:  # Nobody is in between.
            return
        for _ in range(_ATTEMPTS):
            with database.outside_transactions() as second:
                if _read_process_id(second) == _read_process_id(first):
                    raise FailedPrecondition(
                        "the database is reached through a pooler that shares sessions, such as PgBouncer with "
                        "pool_mode=transaction; set pool_mode=session there, or DGX_MUSIC_DATABASE_URL to the database",
                        reason="DATABASE_POOLER",
                        metadata={"field": "database_url"},
                    )


def _read_process_id(connection: Connection) -> int:
    return int(connection.scalar(text("SELECT pg_backend_pid()")) or 0)


def _announced_process_id(connection: Connection) -> int:
    """Returns the id that the client was given when it connected. A pooler gives its own."""
    announced: int = connection.connection.dbapi_connection.info.backend_pid  # type: ignore[union-attr]
    return announced
