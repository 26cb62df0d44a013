"""Translates errors of the database drivers: what may be temporary is Unavailable, what needs a person says so."""

from __future__ import annotations

import shutil
from pathlib import Path

from sqlalchemy.exc import DBAPIError, OperationalError

from dgx_music.errors import FailedPrecondition, ServiceError, Unavailable
from storage_service.db.sqlite import error_code, sqlite3

RETRY_AFTER_SECONDS = 1.0
"""How long a caller should wait before it retries after the database did not answer."""

_SQLITE_UNWRITABLE = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
_SQLITE_NO_TABLE = "no such table"

_POSTGRES_LOCK_TIMEOUT, _POSTGRES_DEADLOCK = "55P03", "40P01"
_POSTGRES_DISK_FULL, _POSTGRES_NO_TABLE = "53100", "42P01"
_POSTGRES_UNWRITABLE = {"25006", "42501"}
"""The transaction is read-only, as on a standby; a right is missing."""
_POSTGRES_DAMAGED = {"XX001", "XX002"}
_POSTGRES_TOO_MANY = "too many clients", "too many connections", "remaining connection slots"
"""A refused connection has no code of its own."""
_POSTGRES_TIMEOUTS = {"25P03", "25P04"}
"""Limits of a transaction that the server enforces: its idle time and its duration. psycopg counts them among the
internal errors."""

_SHARED_MEMORY_BYTES = 32 << 10
"""The size in which SQLite extends the shared memory of a WAL."""


class DamagedDatabase(FailedPrecondition):
    """The file is not a SQLite database, or the database is corrupt."""


class UnwritableDatabase(Unavailable):
    """The disk is full, fails or is read-only: nothing can be recorded until that is repaired."""


class Deadlock(Unavailable):
    """Two transactions waited for each other; Postgres has rolled back this one."""


class ReplacedDatabase(Unavailable):
    """What is open is no longer the database: what was written to it would be lost. The process has to be restarted."""


def translate_error(error: DBAPIError, folder: Path) -> ServiceError | None:
    """Returns the error to raise for a driver's error, or None if it is a bug of ours, such as invalid SQL.

    `folder` is that of a SQLite database.
    """
    if isinstance(error.orig, sqlite3.Error):
        return _translate_sqlite(error.orig, folder)
    return _translate_postgres(error)


def _translate_sqlite(original: sqlite3.Error, folder: Path) -> ServiceError | None:
    code = error_code(original)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return locked()
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return _damaged(original)
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _is_full(folder)):
        return _unwritable(f"the database's disk is full: {folder}; free up space", "DISK_FULL")
    if code in _SQLITE_UNWRITABLE:
        return _unwritable(f"the database is unavailable: {original}; check its disk and its access rights")
    return _without_table(original) if str(original).startswith(_SQLITE_NO_TABLE) else None


def _translate_postgres(error: DBAPIError) -> ServiceError | None:
    sqlstate, problem = getattr(error.orig, "sqlstate", None), str(error.orig).partition("\n")[0]
    if sqlstate == _POSTGRES_LOCK_TIMEOUT:
        return locked()
    if sqlstate == _POSTGRES_DEADLOCK:
        return Deadlock(
            "another transaction of the database was in the way; try again later",
            reason="DATABASE_LOCKED",
            retry_after_seconds=RETRY_AFTER_SECONDS,
        )
    if sqlstate == _POSTGRES_DISK_FULL:
        return _unwritable("the disk of the database server is full; free up space there", "DISK_FULL")
    if sqlstate in _POSTGRES_UNWRITABLE:
        return _unwritable(f"the database is not writable: {problem}; check its settings and the rights of its user")
    if sqlstate in _POSTGRES_DAMAGED:
        return _damaged(problem)
    if sqlstate == _POSTGRES_NO_TABLE:
        return _without_table(problem)
    if any(words in problem for words in _POSTGRES_TOO_MANY):
        advice = "raise Postgres's max_connections, or lower DGX_MUSIC_DATABASE_CONNECTIONS"
        return unavailable(f"the database has no free connection ({problem}): {advice}", "DATABASE_CONNECTIONS")
    # Lost or refused connections: errors that may be temporary.
    if isinstance(error, OperationalError) or sqlstate in _POSTGRES_TIMEOUTS:
        return unavailable(f"the database is unavailable: {problem}")
    return None


def unavailable(problem: str, reason: str = "DATABASE_UNAVAILABLE") -> Unavailable:
    """Returns the error of a call that may succeed if it is repeated."""
    return Unavailable(f"{problem}; try again later", reason=reason, retry_after_seconds=RETRY_AFTER_SECONDS)


def locked() -> Unavailable:
    """Returns the error of a call that waited too long for a lock."""
    return unavailable("the database is locked by another process", reason="DATABASE_LOCKED")


def _unwritable(problem: str, reason: str = "DATABASE_UNAVAILABLE") -> UnwritableDatabase:
    return UnwritableDatabase(problem, reason=reason, retry_after_seconds=RETRY_AFTER_SECONDS)


def _damaged(problem: object) -> DamagedDatabase:
    advice = "restore a backup with: dgx-music db restore FILE"
    return DamagedDatabase(f"the database is damaged: {problem}; {advice}", reason="DATABASE_DAMAGED")


def _without_table(problem: object) -> ReplacedDatabase:
    return replaced(f"the database lacks a table that it had ({problem})")


def replaced(problem: str) -> ReplacedDatabase:
    """Returns the error of a database that was exchanged while it was in use."""
    return ReplacedDatabase(
        f"{problem}; restart the storage service",
        reason="DATABASE_REPLACED",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )


def _is_full(folder: Path) -> bool:
    """Returns whether there is no room for what SQLite writes at once. It reports some full disks as I/O errors."""
    try:
        return shutil.disk_usage(folder).free < _SHARED_MEMORY_BYTES
    except OSError:
        return False
