"""A database for each test, on SQLite and on Postgres, a check of it after the fault, and a disk that is soon full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.maintenance.integrity import find_violations

DISK_BYTES = 4 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a disk requires root")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@pytest.fixture
def url(empty_url: str) -> str:
    schema.upgrade(empty_url)
    return empty_url


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"unix:{tmp_path}/storage.sock"


@pytest.fixture
def database(url: str, open_database: Callable[..., Database]) -> Database:
    return open_database(url)


@pytest.fixture
def is_clean(database: Database) -> Callable[[], bool]:
    """A function that returns whether `db check` finds no violation, and prints those it finds."""

    def check() -> bool:
        found = list(find_violations(database))
        for finding in found:
            print(finding)
        return not found

    return check
