"""Settings for a storage server on a database of its own, once on SQLite and once on Postgres."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage_service.config import StorageSettings


@pytest.fixture
def url(empty_url: str) -> str:
    """A database without a schema: the server creates it when it starts."""
    return empty_url


@pytest.fixture
def settings(url: str, tmp_path: Path) -> StorageSettings:
    return StorageSettings(database_url=url, data_dir=tmp_path)
