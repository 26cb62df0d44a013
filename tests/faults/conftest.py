"""A database for each test, on SQLite and on Postgres, and a check of it after the fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.maintenance.integrity import find_violations


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
