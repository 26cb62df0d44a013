"""Fault 19: a migration is killed halfway. The previous data is intact, and the next migration completes. A server of
another version that runs during a migration stops."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from sqlalchemy import text

from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.maintenance.integrity import find_violations
from tests.support.old_rows import insert_old_rows, rows_of
from tests.support.storage_servers import storage_server

pytestmark = pytest.mark.slow

PROGRAM = "import sys\nfrom storage_service.db import schema\nschema.upgrade(sys.argv[1])\n"


def migrate(url: str, failpoint: str) -> int:
    environment = {**os.environ, "DGX_MUSIC_FAILPOINT": failpoint}
    return subprocess.run([sys.executable, "-c", PROGRAM, url], env=environment, check=False).returncode


def test_killed_migration_leaves_previous_schema(empty_url: str, open_database: Callable[..., Database]) -> None:
    steps = len(schema.REVISIONS) // 2
    schema.upgrade(empty_url, schema.REVISIONS[0])
    insert_old_rows(empty_url)
    database = open_database(empty_url)
    before = rows_of(database)
    assert migrate(empty_url, f"storage.after_migration_step:kill@{steps}") == -signal.SIGKILL
    assert schema.current(empty_url) == schema.REVISIONS[0]
    assert rows_of(database) == before
    database.dispose()
    assert migrate(empty_url, "") == 0
    schema.check(empty_url)
    after = rows_of(database)
    for table, rows in before.items():
        assert [row["id"] for row in after[table]] == [row["id"] for row in rows]
    assert list(find_violations(database)) == []


async def test_server_stops_if_schema_is_migrated_under_it(url: str, address: str, database: Database) -> None:
    async with storage_server(url, address) as server:
        with database.write() as session:
            session.execute(text("UPDATE alembic_version SET version_num = '9999', min_compatible = '9999'"))
        assert await asyncio.wait_for(server.wait(), 60) == 1
