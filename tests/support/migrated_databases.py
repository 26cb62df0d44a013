"""Empty migrated databases, each made in milliseconds from a template."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from storage_service.db.schema import TEXT_INDEX_TABLE
from storage_service.db.sqlite import WAL_SAFE, sqlite3

COMPARED = {
    "compare_type": True,
    "compare_server_default": True,
    "include_name": lambda name, *_: not str(name).startswith(TEXT_INDEX_TABLE) and name != "ix_generations_prompt",
}
"""Alembic's options for comparing a schema with the models, which do not have the text index."""


@contextmanager
def migrated_database(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yields the URL of the database that `request.param` names: a separate file, in WAL mode ("sqlite") or with
    the rollback journal of an older SQLite ("rollback"), or the shared Postgres database, emptied afterwards."""
    if request.param != "postgres":
        path = request.getfixturevalue("tmp_path") / "test.db"
        shutil.copy(request.getfixturevalue("migrated_file"), path)
        version = WAL_SAFE if request.param == "sqlite" else (3, 40, 1)
        # Not for the template file.
        request.getfixturevalue("monkeypatch").setattr(sqlite3, "sqlite_version_info", version)
        yield f"sqlite:///{path}"
        return
    url: str = request.getfixturevalue("migrated_postgres")
    with psycopg.connect(url, autocommit=True) as connection:
        yield url
        connection.execute("SET lock_timeout = '60s'")  # A test that left a transaction open fails instead of hanging.
        tables = "generations, parents, checkpoints, comparisons, comparison_entries, prompts, tokens, client_usage"
        connection.execute(f"TRUNCATE {tables} RESTART IDENTITY")
