"""Maintenance of a whole database."""

from __future__ import annotations

from collections.abc import Callable

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
    with database.write() as session:
        for number in range(100):
            creation.create(session, new(prompt=f"{number} " * 2000))
    assert vacuum.has_rows(database)
    with database.write() as session:
        session.execute(text("DELETE FROM generations"))
        session.execute(text("DELETE FROM prompts"))
    before, after = vacuum.vacuum(database)
    assert after < before
    assert list(find_violations(database)) == []
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Generation)) == 0
