"""A database of its own for each test, on SQLite and on Postgres, and what looks it over when the fault is past."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage_service import schema
from storage_service.check import walk
from storage_service.database import Database
from tests.postgres import url_of


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/test.db"
        return
    connection = request.getfixturevalue("postgres")
    name = f"fault_{uuid.uuid4().hex}"
    connection.execute(f"CREATE DATABASE {name}")
    yield url_of(connection, name)
    connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def url(empty_url: str) -> str:
    schema.upgrade(empty_url)
    return empty_url


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"unix:{tmp_path}/storage.sock"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = Database(url)
    yield opened
    opened.dispose()


@pytest.fixture
def is_clean(database: Database) -> Callable[[], bool]:
    """Whether `db check` finds nothing; shows what it finds."""

    def look() -> bool:
        found = list(walk(database))
        for finding in found:
            print(finding)
        return not found

    return look
