"""Backups and restores that are killed on the way: the earlier backup, and the earlier database, are still whole."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import func, select

from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.domain import creation
from storage_service.domain.creation import NewGeneration
from storage_service.maintenance import backup
from storage_service.maintenance.integrity import find_violations

NEW = NewGeneration("a calm piano", "sketch", 4.0, 32000, 2)
PROGRAM = """
import sys
from pathlib import Path
from storage_service.maintenance import backup
from storage_service.db.database import Database
backup.STEP_PAGES = 2
getattr(backup, sys.argv[1])(Database(sys.argv[2]), Path(sys.argv[3]))
"""


def killed(what: str, failpoint: str, database: Database, copy: Path) -> None:
    """Does it in a process that ends at the failpoint."""
    environment = {**os.environ, "DGX_MUSIC_FAILPOINT": f"{failpoint}:kill@2" if "during" in failpoint else failpoint}
    command = [sys.executable, "-c", PROGRAM, what, str(database.url), str(copy)]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL


def create(database: Database, number: int) -> None:
    with database.write() as session:
        for _ in range(number):
            creation.create(session, NEW)


def count(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(Generation)) or 0


@pytest.fixture
def two(tmp_path: Path, open_database: Callable[..., Database]) -> tuple[Database, Path]:
    """A database with five generations, and a backup of when it had two."""
    url = f"sqlite:///{tmp_path}/test.db"
    schema.upgrade(url)
    database, copy = open_database(url), tmp_path / "backup"
    create(database, 2)
    backup.create_backup(database, copy)
    create(database, 3)
    database.dispose()
    return database, copy


@pytest.mark.parametrize("failpoint", ["storage.during_copy", "storage.before_backup_rename:kill"])
def test_a_backup_that_is_killed_leaves_the_earlier_one(two: tuple[Database, Path], failpoint: str) -> None:
    database, copy = two
    killed("create_backup", failpoint, database, copy)
    backup.restore(database, copy)
    assert count(database) == 2
    assert list(find_violations(database)) == []


def test_a_restore_that_is_killed_leaves_the_earlier_database(two: tuple[Database, Path]) -> None:
    database, copy = two
    shutil.copy(copy, copy.with_suffix(".kept"))
    killed("restore", "storage.during_copy", database, copy)
    assert copy.with_name("test.db-journal").stat().st_size > 0  # It was in the midst of writing.
    assert count(database) == 5
    assert list(find_violations(database)) == []
    assert copy.read_bytes() == copy.with_suffix(".kept").read_bytes()
    assert backup.restore(database, copy) == schema.REVISIONS[-1]
    assert count(database) == 2
