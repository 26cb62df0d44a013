"""Makes a database report that its disk is full."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.orm import Session


def fill_disk(session: Session) -> None:
    """Writes more than SQLite may use for the database; makes Postgres raise the error that it then has."""
    if session.get_bind().dialect.name == "sqlite":
        session.execute(text("PRAGMA max_page_count=1"))  # The size that it has.
        session.execute(text("CREATE TABLE filler AS SELECT zeroblob(1000000) AS content"))
    else:
        session.execute(text("DO $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END $$"))
