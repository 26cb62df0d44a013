"""How SQLite is set up: journal modes, locks and durable commits."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from dgx_music.errors import Unavailable
from storage_service.db import database, schema
from storage_service.db.database import Database
from storage_service.db.error_translation import RETRY_AFTER_SECONDS
from storage_service.db.sqlite import WAL_SAFE, journal_mode, sqlite3
from storage_service.domain import creation
from storage_service.domain.creation import NewGeneration


def no_shared_memory(*_: object) -> None:
    """Stands for mmap on a file system that has no memory to share; SQLite is denied it by a folder named …-shm."""
    raise OSError(errno.ENODEV, "no such device")


def test_journal_mode_is_wal_only_if_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert journal_mode((3, 51, 2), tmp_path) == "PERSIST"
    assert journal_mode((3, 51, 3), tmp_path) == "WAL"
    assert journal_mode((3, 52, 0), tmp_path / "not there yet") == "WAL"
    monkeypatch.setattr("mmap.mmap", no_shared_memory)
    assert journal_mode((3, 52, 0), tmp_path) == "PERSIST"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", [(3, 40, 1), (3, 51, 3)])
def test_sqlite_connection_has_durable_settings(
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


def test_change_to_wal_waits_for_lock(
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


def test_wal_is_overwritten_instead_of_truncated(
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
    assert sizes[-1] < database._MAX_JOURNAL_BYTES


@pytest.mark.parametrize("version", [(3, 40, 1), WAL_SAFE])
def test_database_leaves_wal_without_shared_memory(
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


def test_write_locks_before_first_read(tmp_path: Path, open_database: Callable[..., Database]) -> None:
    opened = open_database(f"sqlite:///{tmp_path}/a.db", busy_timeout_seconds=0.05)
    with opened.write() as session:
        session.execute(text("SELECT 1"))
        with pytest.raises(Unavailable) as raised, opened.write() as other:
            other.execute(text("SELECT 1"))
        with opened.read() as reader:
            reader.execute(text("SELECT 1"))
    assert raised.value.reason == "DATABASE_LOCKED"
    assert raised.value.retry_after_seconds == RETRY_AFTER_SECONDS


def test_in_memory_database_is_shared_by_sessions(
    new: Callable[..., NewGeneration], open_database: Callable[..., Database]
) -> None:
    opened = open_database("sqlite://")
    schema.ensure(opened)
    with opened.write() as session:
        creation.create(session, new())
    with opened.read() as session:
        assert session.scalar(text("SELECT count(*) FROM generations")) == 1
