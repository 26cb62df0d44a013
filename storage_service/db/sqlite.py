"""SQLite's module, and the journal that a database is kept with.

The module is Python's own, or a newer one from PyPI where Python's is too old for WAL: before 3.51.3 two connections
could corrupt a database in WAL mode (the WAL-reset race), and what Python brings along is older for years. PyPI has
builds for Linux on x86-64; elsewhere a rollback journal does, with five syncs a commit.
"""

from __future__ import annotations

import mmap
import sqlite3
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

WAL_SAFE = (3, 51, 3)

_RETRY_SECONDS = 0.01

if not TYPE_CHECKING and sqlite3.sqlite_version_info < WAL_SAFE:
    with suppress(ModuleNotFoundError):
        import pysqlite3.dbapi2 as sqlite3

__all__ = ["WAL_SAFE", "error_code", "journal_mode", "set_journal_mode", "shares_memory", "sqlite3"]


def error_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; SQLITE_ERROR where it is not told, as by pysqlite3 where a copy fails."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF  # The rest of it tells more.


def journal_mode(sqlite_version: tuple[int, ...], folder: Path) -> str:
    """The fastest journal mode that this version of SQLite keeps safe, and the file system of `folder` is fit for.

    PERSIST rather than DELETE: with synchronous=FULL it syncs the journal whose header it has overwritten, so that a
    power cut just after a commit can't bring the journal back and undo it. DELETE does that only with
    synchronous=EXTRA. TRUNCATE does it too, and takes a fifth longer a commit: the file system notes the new length.
    """
    return "WAL" if sqlite_version >= WAL_SAFE and shares_memory(folder) else "PERSIST"


def set_journal_mode(connection: sqlite3.Connection, mode: str) -> None:
    """Waits for a lock as every other statement does; by itself, the change from one mode to another would not."""
    (busy_timeout_ms,) = connection.execute("PRAGMA busy_timeout").fetchone()
    until = time.monotonic() + busy_timeout_ms / 1000
    while True:
        try:
            connection.execute(f"PRAGMA journal_mode={mode}")
        except sqlite3.OperationalError as error:
            if error_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            return


def shares_memory(folder: Path) -> bool:
    """Whether processes can share memory through a file there, without which a database in WAL mode can't be opened:
    not on a Windows drive under WSL, in a folder shared with a virtual machine, on some network file systems.

    True also where no file can be made: SQLite says that better.
    """
    try:
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # Closed below.
    except OSError:
        return True
    with file:
        try:
            file.truncate(mmap.PAGESIZE)
            mmap.mmap(file.fileno(), mmap.PAGESIZE).close()
        except OSError:
            return False
    return True
