"""Maintenance of a whole database."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from sqlalchemy import func, select, text

from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.domain import creation
from storage_service.domain.creation import NewGeneration
from storage_service.maintenance import vacuum
from storage_service.maintenance.integrity import find_violations


@pytest.fixture
def url(empty_url: str) -> str:
    """A database that no other test uses, because its size is compared."""
    schema.upgrade(empty_url)
    return empty_url


def test_vacuum_shrinks_database_after_deletions(database: Database, new: Callable[..., NewGeneration]) -> None:
    assert not vacuum.has_rows(database)
    # Random text: Postgres compresses what repeats, and then the statistics take more space than the rows did.
    generator = Random(1)
    with database.write() as session:
        for _ in range(100):
            creation.create(session, new(prompt=generator.randbytes(2000).hex()))
    assert vacuum.has_rows(database)
    full = vacuum.measure_size_bytes(database)
    with database.write() as session:
        session.execute(text("DELETE FROM generations"))
        session.execute(text("DELETE FROM prompts"))
    before, after = vacuum.vacuum(database)
    assert after < full - 200_000
    # Postgres's autovacuum may have freed the rows before us.
    assert before > after or not database.is_sqlite
    assert list(find_violations(database)) == []
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Generation)) == 0
