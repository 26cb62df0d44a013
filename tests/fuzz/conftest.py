"""A database for each test, on SQLite and on Postgres."""

from __future__ import annotations

import pytest

from storage_service.db import schema


@pytest.fixture
def url(empty_url: str) -> str:
    schema.upgrade(empty_url)
    return empty_url
