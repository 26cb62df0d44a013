"""Copies of the whole database: made while servers work on it, put back while none does.

A copy of SQLite is a SQLite file, made by its backup API; one of Postgres is pg_dump's custom format. Either is written
under another name, synced, and only then given its own: what has the name is whole.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import URL

from dgx_music.errors import FailedPrecondition, Unavailable
from service_runtime.failpoints import failpoint
from storage_service.db import schema
from storage_service.db.database import RETRY_AFTER_SECONDS, Database
from storage_service.db.sqlite import error_code, set_journal_mode, sqlite3
from storage_service.maintenance import postgres_backup

STEP_PAGES = 1024
"""Copied at once, 4 MB: between two steps, writers have their turn."""

MOST_RESTARTS = 3
"""Each commit of another process begins a copy anew. After so many, the rest is copied in one step."""

_BUSY_PAUSE_SECONDS = 0.02


class _Restless(Exception):
    """Too many commits came in between."""


def back_up(database: Database, path: Path) -> None:
    """Writes a copy of the database as of one moment to `path`, over what is there. Servers may go on meanwhile.

    FailedPrecondition where it can't be written, Unavailable where the database is locked for too long.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _file_errors(path):
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # Prompts may be nobody else's matter.
        if database.is_sqlite:
            with _sqlite_errors(path), _copied(database, part) as copy:
                _check_integrity(copy, path)
        else:
            postgres_backup.dump(database, part)
        with _file_errors(path):
            _sync(part)
            failpoint("storage.before_backup_rename")
            os.replace(part, path)
            _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def still(database: Database) -> Iterator[Database]:
    """The database as of one moment, for long statements, while the block runs. A reader of SQLite keeps writers
    waiting: there it is a copy, beside the file. On Postgres, where it does not, it is the database itself."""
    if not database.is_sqlite:
        yield database
        return
    file = _file_of(database)
    with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as folder:
        path = Path(folder, "still.db")
        with _sqlite_errors(file), _copied(database, path):
            pass
        with Database(URL.create("sqlite", database=str(path))) as copy:
            yield copy


def revision_in(database: Database, path: Path) -> str:
    """The schema's revision in the copy at `path`, which is read whole and found in order.

    FailedPrecondition where it is no copy of this kind of database, damaged, or of a newer version.
    """
    if not path.is_file():
        raise FailedPrecondition(f"there is no file {path}", reason="BACKUP_NOT_FOUND")
    revision = _sqlite_revision(path) if database.is_sqlite else postgres_backup.revision_in(database, path)
    if revision not in schema.REVISIONS:
        raise FailedPrecondition(
            f"{path} holds a schema at revision {revision}, which this version does not know "
            f"(the newest is {schema.REVISIONS[-1]}): install the version of DGX Music that made it, or a later one",
            reason="SCHEMA_NEWER",
            metadata={"found": revision, "known": schema.REVISIONS[-1]},
        )
    return revision


def restore(database: Database, path: Path) -> str:
    """Puts the copy at `path` in the database's place, all or nothing; gives the revision of its schema.

    Until it is in place, the old one is: broken off, this leaves what was there before. No server may be at work.
    Raises as `revision_in` does, and Unavailable where somebody uses the database.
    """
    revision = revision_in(database, path)
    if not database.is_sqlite:
        postgres_backup.restore(database, path)
        return revision
    _move_aside_if_damaged(database)
    database.dispose()  # As long as anybody has it open, it can't leave WAL.
    # Into the file itself, in one transaction of SQLite's: a journal keeps the old pages until all new ones are there.
    with _sqlite_errors(path), _read_only(path) as source, _sqlite(database) as target:
        set_journal_mode(target, "TRUNCATE")  # In WAL mode, a copy with pages of another size is refused.
        _copy(source, target, database.busy_timeout_seconds)
    return revision


@contextmanager
def _copied(database: Database, path: Path) -> Iterator[sqlite3.Connection]:
    """A copy of SQLite at `path`, not yet synced."""
    with _sqlite(database) as source, closing(sqlite3.connect(path)) as target:
        target.execute("PRAGMA locking_mode=EXCLUSIVE")  # In which WAL does without memory that is shared.
        target.execute("PRAGMA synchronous=OFF")
        _copy(source, target, database.busy_timeout_seconds)
        target.execute("PRAGMA journal_mode=DELETE")  # In WAL mode, it would not be one file.
        yield target


def _copy(source: sqlite3.Connection, target: sqlite3.Connection, patience_seconds: float) -> None:
    left: int | None = None
    restarts = 0
    is_last_try = False
    progressed_at = time.monotonic()

    def progress(status: int, remaining: int, _total: int) -> None:
        nonlocal left, restarts, progressed_at
        failpoint("storage.during_copy")
        now = time.monotonic()
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            if now - progressed_at > patience_seconds:
                raise _locked()
            return
        progressed_at = now
        if left is not None and remaining >= left > 0:
            restarts += 1
            if restarts > MOST_RESTARTS and not is_last_try:
                raise _Restless
        left = remaining

    try:
        source.backup(target, pages=STEP_PAGES, progress=progress, sleep=_BUSY_PAUSE_SECONDS)
    except _Restless:
        is_last_try = True
        source.backup(target, pages=-1, progress=progress, sleep=_BUSY_PAUSE_SECONDS)


def _sqlite_revision(path: Path) -> str:
    with _sqlite_errors(path), _read_only(path) as copy:
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
    """What is no SQLite file any more can't be written into."""
    file = _file_of(database)
    try:
        with _sqlite(database) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.DatabaseError as error:
        if error_code(error) not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return
        for suffix in ("", "-journal", "-wal", "-shm"):
            part = file.with_name(file.name + suffix)
            if part.exists():
                os.replace(part, part.with_name(part.name + ".damaged"))


@contextmanager
def _sqlite(database: Database) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(_file_of(database), timeout=database.busy_timeout_seconds)) as connection:
        connection.execute("PRAGMA synchronous=FULL")
        yield connection


@contextmanager
def _read_only(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        yield connection


def _file_of(database: Database) -> Path:
    return Path(str(database.url.database))


@contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        if error_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise _locked() from error
        raise FailedPrecondition(f"{path} can't be used: {error}", reason="BACKUP_UNUSABLE") from error


@contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FailedPrecondition(f"can't write {path}: {error.strerror}", reason="BACKUP_UNWRITABLE") from error


def _locked() -> Unavailable:
    return Unavailable(
        "the database is locked by another process; try again",
        reason="DATABASE_LOCKED",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )


def _sync(path: Path) -> None:
    """A file's bytes, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
