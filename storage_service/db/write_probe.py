"""Finds out whether a database that could not be written to can be written to again."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.orm import Session

PROBE_BYTES = 64 << 10


def write_probe(session: Session) -> None:
    """Writes `PROBE_BYTES` that the end of the transaction removes again. Raises the error that the database has."""
    if session.get_bind().dialect.name == "sqlite":
        # Not a temporary table, which SQLite keeps elsewhere.
        session.execute(text(f"CREATE TABLE write_probe AS SELECT zeroblob({PROBE_BYTES}) AS content"))
        session.execute(text("DROP TABLE write_probe"))
    else:
        session.execute(
            text(f"CREATE TEMPORARY TABLE write_probe ON COMMIT DROP AS SELECT repeat('x', {PROBE_BYTES}) AS content")
        )
