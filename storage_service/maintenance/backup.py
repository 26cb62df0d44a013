"""Backs up a database while servers use it, and restores it while none does.

A backup of SQLite is a SQLite file, written by its backup API; one of Postgres is in pg_dump's custom format. Either is
written to a temporary name, synced and then renamed, so that a file with the final name is always complete.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from sqlalchemy import URL

from dgx_music.errors import FailedPrecondition
from service_runtime.failpoints import failpoint
from service_runtime.file_modes import open_private
from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.db.error_translation import locked
from storage_service.db.sqlite import create_file, error_code, set_journal_mode, sqlite3
from storage_service.maintenance import postgres_backup
from storage_service.maintenance.temporary_copies import temporary_folder

STEP_PAGES = 1024
"""Pages that are copied in one step, 4 MB. Writers get their turn between two steps."""

MAX_RESTARTS = 3
"""Each commit of another process restarts the copy. After so many restarts, it is copied in one step."""

_BUSY_DELAY_SECONDS = 0.02


class _SourceKeepsChanging(Exception):
    """The copy was restarted too often by commits of other processes."""


def create_backup(database: Database, path: Path) -> None:
    """Writes a consistent copy of the database to `path`, and replaces a file that is already there.

    Servers may use the database meanwhile. Raises FailedPrecondition if the copy can't be written, and Unavailable if
    the database is locked for too long.
    """
    with ExitStack() as stack:
        with _file_errors(path):
            part = stack.enter_context(temporary_folder(path)) / path.name
            os.close(open_private(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY))  # Prompts may be private.
        if database.is_sqlite:
            with _sqlite_errors(path), _sqlite_copy(database, part) as copy:
                _check_integrity(copy, path)
        else:
            postgres_backup.dump(database, part)
        with _file_errors(path):
            _sync(part)
            failpoint("storage.before_backup_rename")
            os.replace(part, path)
            _sync(path.parent)


@contextmanager
def snapshot(database: Database) -> Iterator[Database]:
    """Yields a database for long read statements, while the block runs.

    For SQLite it is a temporary copy beside the file, because a reader would keep writers waiting. On Postgres readers
    block nobody, so it is the database itself.
    """
    if not database.is_sqlite:
        yield database
        return
    file = _sqlite_file(database)
    with ExitStack() as stack:
        with _file_errors(file.parent):
            path = stack.enter_context(temporary_folder(file)) / "snapshot.db"
        with _sqlite_errors(file), _sqlite_copy(database, path):
            pass
        with Database(URL.create("sqlite", database=str(path))) as copy:
            yield copy


def read_revision(database: Database, path: Path) -> str:
    """Returns the schema revision of the backup at `path`, after reading all of it.

    Raises FailedPrecondition if it is not a backup of this kind of database, is damaged, or is of a newer version.
    """
    if not path.is_file():
        raise FailedPrecondition(f"{path} does not exist", reason="BACKUP_NOT_FOUND")
    revision = _read_sqlite_revision(path) if database.is_sqlite else postgres_backup.read_revision(database, path)
    if revision not in schema.REVISIONS:
        raise FailedPrecondition(
            f"{path} has schema revision {revision}, which this version of DGX Music does not know (its newest is "
            f"{schema.REVISIONS[-1]}): install the version that wrote the backup, or a later one",
            reason="SCHEMA_NEWER",
            metadata={"found": revision, "known": schema.REVISIONS[-1]},
        )
    return revision


def restore(database: Database, path: Path) -> str:
    """Replaces the database by the backup at `path`, and returns the revision of its schema.

    This is atomic: if it is interrupted, the old database is still there. No server may be running. Raises the same
    errors as `read_revision`, and Unavailable if the database is in use.
    """
    revision = read_revision(database, path)
    if not database.is_sqlite:
        postgres_backup.restore(database, path)
        return revision
    _move_aside_if_damaged(database)
    database.dispose()  # A database that is open elsewhere can't leave WAL mode.
    # Written into the file itself, as one SQLite transaction: a journal keeps the old pages until all are replaced.
    with _sqlite_errors(path), _open_read_only(path) as source, _open_sqlite(database) as target:
        set_journal_mode(target, "TRUNCATE")  # In WAL mode, SQLite rejects a copy with another page size.
        _copy(source, target, database.busy_timeout_seconds)
    return revision


@contextmanager
def _sqlite_copy(database: Database, path: Path) -> Iterator[sqlite3.Connection]:
    """Copies the SQLite database to `path` without syncing it, and yields a connection to the copy."""
    with _open_sqlite(database) as source, closing(sqlite3.connect(path)) as target:
        target.execute("PRAGMA locking_mode=EXCLUSIVE")  # In this mode WAL needs no shared memory.
        target.execute("PRAGMA synchronous=OFF")
        _copy(source, target, database.busy_timeout_seconds)
        target.execute("PRAGMA journal_mode=DELETE")  # In WAL mode, it would be more than one file.
        yield target


def _copy(source: sqlite3.Connection, target: sqlite3.Connection, busy_timeout_seconds: float) -> None:
    previous_remaining: int | None = None
    restarts = 0
    is_last_try = False
    progressed_at = time.monotonic()

    def progress(status: int, remaining: int, _total: int) -> None:
        nonlocal previous_remaining, restarts, progressed_at
        failpoint("storage.during_copy")
        now = time.monotonic()
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            if now - progressed_at > busy_timeout_seconds:
                raise locked()
            return
        progressed_at = now
        if previous_remaining is not None and remaining >= previous_remaining > 0:
            restarts += 1
            if restarts > MAX_RESTARTS and not is_last_try:
                raise _SourceKeepsChanging
        previous_remaining = remaining

    try:
        source.backup(target, pages=STEP_PAGES, progress=progress, sleep=_BUSY_DELAY_SECONDS)
    except _SourceKeepsChanging:
        is_last_try = True
        source.backup(target, pages=-1, progress=progress, sleep=_BUSY_DELAY_SECONDS)


def _read_sqlite_revision(path: Path) -> str:
    with _sqlite_errors(path), _open_read_only(path) as copy:
        _check_integrity(copy, path)
        try:
            (revision,) = copy.execute("SELECT version_num FROM alembic_version").fetchone() or ("none",)
        except sqlite3.OperationalError as error:
            raise FailedPrecondition(
                f"{path} is not a backup of DGX Music: {error}", reason="BACKUP_UNUSABLE"
            ) from error
    return str(revision)


def _check_integrity(copy: sqlite3.Connection, path: Path) -> None:
    (verdict,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise FailedPrecondition(f"{path} is damaged: {verdict}", reason="BACKUP_UNUSABLE")


def _move_aside_if_damaged(database: Database) -> None:
    """Renames a database that is damaged so badly that SQLite can't write to it."""
    file = _sqlite_file(database)
    try:
        with _open_sqlite(database) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.DatabaseError as error:
        if error_code(error) not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return
        for suffix in ("", "-journal", "-wal", "-shm"):
            part = file.with_name(file.name + suffix)
            if part.exists():
                os.replace(part, part.with_name(part.name + ".damaged"))


@contextmanager
def _open_sqlite(database: Database) -> Iterator[sqlite3.Connection]:
    create_file(_sqlite_file(database))
    with closing(sqlite3.connect(_sqlite_file(database), timeout=database.busy_timeout_seconds)) as connection:
        connection.execute("PRAGMA synchronous=FULL")
        yield connection


@contextmanager
def _open_read_only(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        yield connection


def _sqlite_file(database: Database) -> Path:
    return Path(str(database.url.database))


@contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        if error_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise locked() from error
        raise FailedPrecondition(f"{path} can't be used: {error}", reason="BACKUP_UNUSABLE") from error


@contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FailedPrecondition(f"can't write {path}: {error.strerror}", reason="BACKUP_UNWRITABLE") from error


def _sync(path: Path) -> None:
    """Syncs a file's content, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
