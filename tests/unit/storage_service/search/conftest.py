"""Fixtures of the tests of text search: SQLite's journal mode makes no difference to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.migrated_databases import migrated_database


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty migrated database."""
    with migrated_database(request) as url:
        yield url
