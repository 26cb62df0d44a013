"""What a caller is told of an error of Postgres, as raised by a real server."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from dgx_music.errors import ServiceError, Unavailable
from storage_service.db.database import Database
from storage_service.db.error_translation import DamagedDatabase, Deadlock, ReplacedDatabase, UnwritableDatabase


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
@pytest.mark.parametrize(
    ("sqlstate", "error", "reason"),
    [
        ("25P03", Unavailable, "DATABASE_UNAVAILABLE"),
        ("25P04", Unavailable, "DATABASE_UNAVAILABLE"),
        ("57014", Unavailable, "DATABASE_UNAVAILABLE"),
        ("40P01", Deadlock, "DATABASE_LOCKED"),
        ("55P03", Unavailable, "DATABASE_LOCKED"),
        ("25006", UnwritableDatabase, "DATABASE_UNAVAILABLE"),
        ("42501", UnwritableDatabase, "DATABASE_UNAVAILABLE"),
        ("53100", UnwritableDatabase, "DISK_FULL"),
        ("XX001", DamagedDatabase, "DATABASE_DAMAGED"),
        ("42P01", ReplacedDatabase, "DATABASE_REPLACED"),
    ],
)
def test_postgres_error_is_translated(database: Database, sqlstate: str, error: type, reason: str) -> None:
    with pytest.raises(ServiceError) as raised, database.read() as session:
        session.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'no luck' USING ERRCODE = '{sqlstate}'; END $$"))
    assert (type(raised.value), raised.value.reason) == (error, reason)


def test_missing_table_means_another_database(database: Database) -> None:
    with pytest.raises(ReplacedDatabase, match="restart"), database.read() as session:
        session.execute(text("SELECT 1 FROM nothing_there"))
