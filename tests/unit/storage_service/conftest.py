"""Fixtures of storage's unit tests: a database is on SQLite, mostly in two journal modes, and on Postgres."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import update

from storage_service import api
from storage_service.config import StorageSettings
from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.domain import creation
from storage_service.domain.creation import NewGeneration
from storage_service.states import GenerationStatus
from tests.support.migrated_databases import migrated_database
from tests.support.postgres import url_of


@pytest.fixture(scope="session")
def migrated_postgres(postgres: psycopg.Connection[Any]) -> str:
    postgres.execute("CREATE DATABASE migrated")
    url = url_of(postgres, "migrated")
    schema.upgrade(url)
    return url


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "migrated.db"
    schema.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", pytest.param("rollback", marks=pytest.mark.slow), "postgres"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty migrated database, on SQLite in two journal modes and on Postgres."""
    with migrated_database(request) as url:
        yield url


@pytest.fixture
def database(url: str, open_database: Callable[..., Database]) -> Database:
    return open_database(url)


@pytest.fixture
def empty_database(empty_url: str, open_database: Callable[..., Database]) -> Database:
    """A database without a schema until the test creates it."""
    return open_database(empty_url)


@pytest.fixture
def settings(url: str, tmp_path: Path) -> StorageSettings:
    return StorageSettings(database_url=url, data_dir=tmp_path)


@pytest.fixture
def library_closed() -> Iterator[None]:
    """Closes what a test opened with `init_db`."""
    yield
    if api._database is not None:
        api._database.dispose()
        api._database = None


@pytest.fixture
def new() -> Callable[..., NewGeneration]:
    """Builds a valid request, with the changes that a test passes."""

    def build(**changes: Any) -> NewGeneration:
        request = {
            "prompt": "a calm piano",
            "model_name": "sketch",
            "duration_seconds": 4.0,
            "sample_rate": 32000,
            "channels": 2,
        }
        return NewGeneration(**{**request, **changes})

    return build


TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def row_in(database: Database, new: Callable[..., NewGeneration]) -> Callable[..., Generation]:
    """Creates a row directly in a state. All but PENDING rows hold or held a lease with TOKEN."""

    def put(status: GenerationStatus, **values: Any) -> Generation:
        from storage_service.db.clock import now, now_plus

        if status is not GenerationStatus.PENDING:
            values = {
                "lease_token": TOKEN,
                "lease_expires_at": now_plus(60.0),
                "attempt": 1,
                "worker_id": "w",
                "started_at": now(),
                **values,
            }
        if status is GenerationStatus.PROCESSING:
            values = {"lease_check_at": values["lease_expires_at"], **values}
        if status is GenerationStatus.FAILED:
            values |= {"error_message": "no luck", "completed_at": now()}
        with database.write() as session:
            row = creation.create(session, new())
            session.execute(update(Generation).where(Generation.id == row.id).values(status=status, **values))
            session.refresh(row)
            return row

    return put
