"""URLs, how SQLite is set up, and what a database that does not answer is to a caller."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, ProgrammingError

from dgx_music.errors import FailedPrecondition, Unavailable
from storage_service.config import StorageSettings
from storage_service.db import database, schema
from storage_service.db.database import Database, parse_url
from storage_service.db.sqlite import WAL_SAFE, journal_mode, sqlite3
from storage_service.domain import creation
from storage_service.domain.creation import NewGeneration
from tests.unit.storage.conftest import no_shared_memory


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_postgres_urls_get_the_driver_that_is_used(scheme: str) -> None:
    assert parse_url(f"{scheme}://u:secret@h/d").drivername == "postgresql+psycopg"


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "secret", "", "postgresql+asyncpg://u:secret@h/d"])
def test_other_urls_are_refused_without_telling_their_password(url: str) -> None:
    with pytest.raises(FailedPrecondition, match="DGX_MUSIC_DATABASE_URL") as raised:
        parse_url(url)
    assert "secret" not in raised.value.message


def test_the_default_is_a_file_in_the_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_database: Callable[..., Database]
) -> None:
    monkeypatch.delenv("DGX_MUSIC_DATABASE_URL", raising=False)
    settings = StorageSettings(data_dir=tmp_path / "new folder" / "ü?%")
    opened = open_database(settings.resolved_database_url())
    schema.ensure(opened)
    assert (tmp_path / "new folder" / "ü?%" / "dgx_music.db").is_file()
    assert StorageSettings(database_url="sqlite:///x.db").resolved_database_url() == "sqlite:///x.db"
    assert "sqlite" not in repr(StorageSettings(database_url="sqlite:///x.db"))


def test_wal_only_where_it_is_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert journal_mode((3, 51, 2), tmp_path) == "PERSIST"
    assert journal_mode((3, 51, 3), tmp_path) == "WAL"
    assert journal_mode((3, 52, 0), tmp_path / "not there yet") == "WAL"
    monkeypatch.setattr("mmap.mmap", no_shared_memory)
    assert journal_mode((3, 52, 0), tmp_path) == "PERSIST"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", [(3, 40, 1), (3, 51, 3)])
def test_sqlite_is_set_up_for_durable_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], open_database: Callable[..., Database]
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    opened = open_database(f"sqlite:///{tmp_path}/a.db", busy_timeout_seconds=1.5)
    with opened.read() as session:
        pragmas = {
            name: session.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    expected = {"synchronous": 2, "foreign_keys": 1, "busy_timeout": 1500}
    assert pragmas == {"journal_mode": journal_mode(version, tmp_path).lower(), **expected}


def test_the_change_to_wal_waits_for_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_database: Callable[..., Database]
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", WAL_SAFE)
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable) as raised:
            journal_mode_of(open_database(f"sqlite:///{tmp_path}/a.db", busy_timeout_seconds=0.05))
        assert raised.value.reason == "DATABASE_LOCKED"
        monkeypatch.setattr("time.sleep", lambda _: other.execute("COMMIT"))
        assert journal_mode_of(open_database(f"sqlite:///{tmp_path}/a.db")) == "wal"


def test_a_wal_is_written_over_and_not_cut_at_each_checkpoint(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    new: Callable[..., NewGeneration],
    open_database: Callable[..., Database],
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", WAL_SAFE)
    opened, sizes = open_database(f"sqlite:///{tmp_path}/a.db"), []
    schema.ensure(opened)
    for _ in range(200):  # 20 MB in all.
        with opened.write() as session:
            creation.create(session, new())
        sizes.append((tmp_path / "a.db-wal").stat().st_size)
    assert sizes == sorted(sizes)
    assert sizes[-1] < database._JOURNAL_BYTES


@pytest.mark.parametrize("version", [(3, 40, 1), WAL_SAFE])
def test_a_database_leaves_wal_where_memory_can_not_be_shared(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    new: Callable[..., NewGeneration],
    open_database: Callable[..., Database],
    version: tuple[int, ...],
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", WAL_SAFE)
    opened = open_database(f"sqlite:///{tmp_path}/a.db")
    schema.ensure(opened)
    opened.dispose()
    (tmp_path / "a.db-shm").mkdir()
    monkeypatch.setattr("mmap.mmap", no_shared_memory)
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    for _ in range(2):
        opened = open_database(opened.url)
        with opened.write() as session:
            creation.create(session, new())
        assert journal_mode_of(opened) == "persist"


def journal_mode_of(opened: Database) -> object:
    with opened.read() as session:
        return session.scalar(text("PRAGMA journal_mode"))


def test_a_writer_takes_its_lock_before_it_reads(tmp_path: Path, open_database: Callable[..., Database]) -> None:
    opened = open_database(f"sqlite:///{tmp_path}/a.db", busy_timeout_seconds=0.05)
    with opened.write() as session:
        session.execute(text("SELECT 1"))
        with pytest.raises(Unavailable) as raised, opened.write() as other:
            other.execute(text("SELECT 1"))
        with opened.read() as reader:
            reader.execute(text("SELECT 1"))
    assert raised.value.reason == "DATABASE_LOCKED"
    assert raised.value.retry_after_seconds == database.RETRY_AFTER_SECONDS


def test_a_database_in_memory_is_one_database(
    new: Callable[..., NewGeneration], open_database: Callable[..., Database]
) -> None:
    opened = open_database("sqlite://")
    schema.ensure(opened)
    with opened.write() as session:
        creation.create(session, new())
    with opened.read() as session:
        assert session.scalar(text("SELECT count(*) FROM generations")) == 1


def test_a_postgres_row_that_stays_locked_is_unavailable(url: str, open_database: Callable[..., Database]) -> None:
    if url.startswith("sqlite"):
        pytest.skip("SQLite locks the file, not a table")
    opened = open_database(url, busy_timeout_seconds=0.05)
    with opened.write() as session:
        session.execute(text("LOCK TABLE prompts"))
        with pytest.raises(Unavailable) as raised, opened.write() as other:
            other.execute(text("LOCK TABLE prompts"))
    assert raised.value.reason == "DATABASE_LOCKED"


def test_no_connection_left_is_unavailable(url: str, open_database: Callable[..., Database]) -> None:
    if url.startswith("sqlite"):
        pytest.skip("a pool of connections is for Postgres")
    opened = open_database(url, busy_timeout_seconds=0.05, connections=1)
    with opened.read() as session:
        session.connection()
        with pytest.raises(Unavailable, match="in use"), opened.read() as other:
            other.connection()


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    opened = Database(f"postgresql://postgres@/x?host={tmp_path}")
    with pytest.raises(Unavailable) as raised, opened.read() as session:
        session.connection()
    assert raised.value.reason == "DATABASE_UNAVAILABLE"
    assert "\n" not in raised.value.message


def test_a_connection_that_the_server_ended_is_replaced(
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


def test_a_file_that_is_no_folder_is_unavailable(tmp_path: Path, open_database: Callable[..., Database]) -> None:
    (tmp_path / "a.db").mkdir()
    opened = open_database(f"sqlite:///{tmp_path}/a.db")
    with pytest.raises(Unavailable) as raised, opened.read() as session:
        session.connection()
    assert raised.value.reason == "DATABASE_UNAVAILABLE"


def test_a_folder_that_can_not_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedPrecondition, match="file/sub") as raised:
        Database(f"sqlite:///{tmp_path}/file/sub/a.db")
    assert raised.value.reason == "DATABASE_FOLDER"


def test_a_mistake_in_our_sql_is_not_made_a_matter_of_waiting(url: str, open_database: Callable[..., Database]) -> None:
    opened = open_database(url)
    with pytest.raises((OperationalError, ProgrammingError)), opened.read() as session:
        session.execute(text("SELECT * FROM nothing"))


def test_without_psycopg_postgres_says_what_to_install() -> None:
    program = (
        "import sys\n"
        "sys.modules['psycopg'] = None\n"
        "from storage_service.db.database import Database\n"
        "try:\n    Database('postgresql://h/d')\n"
        "except Exception as error:\n    print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert "pip install 'dgx-music[postgres]'" in said


def test_processes_that_write_at_once_all_succeed(url: str, open_database: Callable[..., Database]) -> None:
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
    with ThreadPoolExecutor(3) as pool:
        ended = list(pool.map(subprocess.run, [[sys.executable, "-c", program, url]] * 3))
    assert [process.returncode for process in ended] == [0, 0, 0]
    opened = open_database(url)
    with opened.read() as session:
        assert session.scalar(text("SELECT used_count FROM prompts")) == 60


def test_a_connection_that_broke_in_the_pool_is_replaced(database: Database) -> None:
    if database.is_sqlite:
        pytest.skip("a file has no connection to lose")
    with database.engine.connect() as connection:
        broken: Any = connection.connection.dbapi_connection
    broken.close()
    with database.read() as session:
        assert session.scalar(text("SELECT 1")) == 1
