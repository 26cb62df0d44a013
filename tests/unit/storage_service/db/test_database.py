"""Database URLs, connections, and the errors that a caller sees if the database does not answer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, ProgrammingError

from dgx_music.errors import FailedPrecondition, Unavailable
from storage_service.db.database import Database
from storage_service.db.error_translation import UnwritableDatabase
from storage_service.db.sqlite import sqlite3
from storage_service.domain import creation
from storage_service.domain.creation import NewGeneration
from tests.support.full_disk import fill_disk


def test_postgres_lock_timeout_is_unavailable(url: str, open_database: Callable[..., Database]) -> None:
    if url.startswith("sqlite"):
        pytest.skip("SQLite locks the file, not a table")
    opened = open_database(url, busy_timeout_seconds=0.05)
    with opened.write() as session:
        session.execute(text("LOCK TABLE prompts"))
        with pytest.raises(Unavailable) as raised, opened.write() as other:
            other.execute(text("LOCK TABLE prompts"))
    assert raised.value.reason == "DATABASE_LOCKED"


def test_full_disk_is_told_from_other_failures(url: str, open_database: Callable[..., Database]) -> None:
    with pytest.raises(UnwritableDatabase, match="is full") as raised, open_database(url).write() as session:
        fill_disk(session)
    assert raised.value.reason == "DISK_FULL"


def test_exhausted_connection_pool_is_unavailable(url: str, open_database: Callable[..., Database]) -> None:
    if url.startswith("sqlite"):
        pytest.skip("a pool of connections is for Postgres")
    opened = open_database(url, busy_timeout_seconds=0.05, connections=1)
    with opened.read() as session:
        session.connection()
        with pytest.raises(Unavailable, match="in use"), opened.read() as other:
            other.connection()


def test_unreachable_postgres_server_is_unavailable(tmp_path: Path) -> None:
    opened = Database(f"postgresql://postgres@/x?host={tmp_path}")
    with pytest.raises(Unavailable) as raised, opened.read() as session:
        session.connection()
    assert raised.value.reason == "DATABASE_UNAVAILABLE"
    assert "\n" not in raised.value.message


def test_connection_closed_by_server_is_replaced(
    url: str, request: pytest.FixtureRequest, new: Callable[..., NewGeneration], open_database: Callable[..., Database]
) -> None:
    if url.startswith("sqlite"):
        pytest.skip("SQLite has no server")
    admin: psycopg.Connection[tuple[int]] = request.getfixturevalue("postgres")
    opened = open_database(url)
    with opened.write() as session:
        pid = session.scalar(text("SELECT pg_backend_pid()"))
    admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    with opened.write() as session:
        creation.create(session, new())


def test_database_path_that_is_a_folder_is_unavailable(tmp_path: Path, open_database: Callable[..., Database]) -> None:
    (tmp_path / "a.db").mkdir()
    opened = open_database(f"sqlite:///{tmp_path}/a.db")
    with pytest.raises(Unavailable) as raised, opened.read() as session:
        session.connection()
    assert raised.value.reason == "DATABASE_UNAVAILABLE"


def test_folder_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedPrecondition, match="file/sub") as raised:
        Database(f"sqlite:///{tmp_path}/file/sub/a.db")
    assert raised.value.reason == "DATABASE_FOLDER"


def test_invalid_sql_is_not_translated_to_unavailable(url: str, open_database: Callable[..., Database]) -> None:
    opened = open_database(url)
    with pytest.raises((OperationalError, ProgrammingError)), opened.read() as session:
        session.execute(text("SELECT nothing FROM alembic_version"))


def test_missing_psycopg_error_names_the_extra() -> None:
    program = (
        "import sys\n"
        "sys.modules['psycopg'] = None\n"
        "from storage_service.db.database import Database\n"
        "try:\n    Database('postgresql://h/d')\n"
        "except Exception as error:\n    print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert "pip install 'dgx-music[postgres]'" in said


def test_concurrent_writer_processes_all_succeed(url: str, open_database: Callable[..., Database]) -> None:
    program = (
        "import sys\n"
        "from storage_service.domain import creation\n"
        "from storage_service.db.database import Database\n"
        "from storage_service.db.sqlite import sqlite3\n"
        f"sqlite3.sqlite_version_info = {sqlite3.sqlite_version_info}\n"
        "database = Database(sys.argv[1], busy_timeout_seconds=60)\n"
        "new = creation.NewGeneration('p', 'm', 1.0, 32000, 2)\n"
        "for _ in range(20):\n"
        "    with database.write() as session:\n"
        "        creation.create(session, new)\n"
        "database.dispose()\n"
    )
    # Sets the journal mode first: old versions of SQLite that open a WAL database together block one another.
    opened = open_database(url)
    with opened.read() as session:
        session.connection()
    opened.dispose()
    with ThreadPoolExecutor(3) as pool:
        ended = list(pool.map(subprocess.run, [[sys.executable, "-c", program, url]] * 3))
    assert [process.returncode for process in ended] == [0, 0, 0]
    with opened.read() as session:
        assert session.scalar(text("SELECT used_count FROM prompts")) == 60


def test_broken_pooled_connection_is_replaced(database: Database) -> None:
    if database.is_sqlite:
        pytest.skip("a file has no connection to lose")
    with database.engine.connect() as connection:
        broken: Any = connection.connection.dbapi_connection
    broken.close()
    with database.read() as session:
        assert session.scalar(text("SELECT 1")) == 1
