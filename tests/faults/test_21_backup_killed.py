"""Killing a backup or a restore leaves the earlier backup and the earlier database intact."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.domain import creation
from storage_service.domain.creation import NewGeneration
from storage_service.maintenance import backup
from storage_service.maintenance.integrity import find_violations

pytestmark = pytest.mark.slow

FILLER_BYTES = 4 << 20
"""More than SQLite keeps in memory, so that it writes to the file before it commits."""
KILLED_STEP = 200
"""The step of a restore in which it is killed, of about 260."""
NEW = NewGeneration("a calm piano", "sketch", 4.0, 32000, 2)
PROGRAM = """
import sys
from pathlib import Path
from storage_service.maintenance import backup
from storage_service.db.database import Database
backup.STEP_PAGES = 2
getattr(backup, sys.argv[1])(Database(sys.argv[2]), Path(sys.argv[3]))
"""


def run_killed(function: str, failpoint: str, database: Database, copy: Path) -> None:
    """Calls the function of `backup` in a process that is killed at the failpoint."""
    environment = {**os.environ, "DGX_MUSIC_FAILPOINT": failpoint}
    command = [sys.executable, "-c", PROGRAM, function, str(database.url), str(copy)]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL


def create(database: Database, number: int) -> None:
    with database.write() as session:
        for _ in range(number):
            creation.create(session, NEW)


def count(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(Generation)) or 0


@pytest.fixture
def backed_up(tmp_path: Path, open_database: Callable[..., Database]) -> tuple[Database, Path]:
    """A database with five generations, and a backup that was taken when it had two."""
    url = f"sqlite:///{tmp_path}/test.db"
    schema.upgrade(url)
    database, copy = open_database(url), tmp_path / "backup"
    with database.write() as session:
        session.execute(text(f"CREATE TABLE filler AS SELECT zeroblob({FILLER_BYTES}) AS content"))
    create(database, 2)
    backup.create_backup(database, copy)
    create(database, 3)
    database.dispose()
    return database, copy


@pytest.mark.parametrize("failpoint", ["storage.during_copy:kill@2", "storage.before_backup_rename:kill"])
def test_killed_backup_leaves_the_earlier_backup(backed_up: tuple[Database, Path], failpoint: str) -> None:
    database, copy = backed_up
    run_killed("create_backup", failpoint, database, copy)
    backup.restore(database, copy)
    assert count(database) == 2
    assert list(find_violations(database)) == []


def test_killed_restore_leaves_the_earlier_database(backed_up: tuple[Database, Path]) -> None:
    database, copy = backed_up
    shutil.copy(copy, copy.with_suffix(".kept"))
    before = copy.with_name("test.db").read_bytes()
    run_killed("restore", f"storage.during_copy:kill@{KILLED_STEP}", database, copy)
    assert copy.with_name("test.db").read_bytes() != before
    assert count(database) == 5
    assert list(find_violations(database)) == []
    assert copy.read_bytes() == copy.with_suffix(".kept").read_bytes()
    assert backup.restore(database, copy) == schema.REVISIONS[-1]
    assert count(database) == 2
