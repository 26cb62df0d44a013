"""The SQLite module to use, and the choice of a database's journal mode.

The module is Python's own, or pysqlite3 from PyPI if Python's is too old for WAL: before 3.51.3 two connections could
corrupt a database in WAL mode (the WAL-reset race), and the SQLite that Python ships is often years older. PyPI has
builds for Linux on x86-64; elsewhere a rollback journal is used, which costs five syncs per commit.
"""

from __future__ import annotations

import mmap
import sqlite3
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from service_runtime.file_modes import create_private_file, set_mode

WAL_SAFE = (3, 51, 3)
"""The first SQLite version in which WAL mode is safe."""

_RETRY_SECONDS = 0.01

if not TYPE_CHECKING and sqlite3.sqlite_version_info < WAL_SAFE:
    with suppress(ModuleNotFoundError):
        import pysqlite3.dbapi2 as sqlite3

__all__ = [
    "WAL_SAFE",
    "create_file",
    "error_code",
    "journal_mode",
    "set_journal_mode",
    "sqlite3",
    "supports_shared_memory",
]

_FILE_SUFFIXES = "-journal", "-wal", "-shm"
"""What SQLite appends to the database's name for its other files."""


def create_file(path: Path) -> None:
    """Creates an empty database that only its owner may open, or makes an existing one private with its other files.

    SQLite gives the files that it creates later the same access rights; those of a database that was read-only get
    them here.
    """
    with suppress(OSError):  # SQLite reports a folder or a file that is not writable better.
        create_private_file(path)
        mode = stat.S_IMODE(path.stat().st_mode)
        for suffix in _FILE_SUFFIXES:
            set_mode(path.with_name(path.name + suffix), mode)


def error_code(error: sqlite3.Error) -> int:
    """Returns SQLite's primary result code, or SQLITE_ERROR if it is unknown, as with pysqlite3 if a copy fails."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF  # The rest is the extended code.


def journal_mode(sqlite_version: tuple[int, ...], folder: Path) -> str:
    """Returns the fastest journal mode that is safe with this SQLite version and on the file system of `folder`.

    PERSIST rather than DELETE: with synchronous=FULL it syncs the journal after overwriting its header, so a power cut
    just after a commit can't revive the journal and undo the commit. DELETE guarantees that only with
    synchronous=EXTRA. TRUNCATE guarantees it too, but makes a commit a fifth slower: the file system has to record the
    new length.
    """
    return "WAL" if sqlite_version >= WAL_SAFE and supports_shared_memory(folder) else "PERSIST"


def set_journal_mode(connection: sqlite3.Connection, mode: str) -> None:
    """Sets the journal mode. Waits for a lock like every other statement, which SQLite does not do for this pragma."""
    (busy_timeout_ms,) = connection.execute("PRAGMA busy_timeout").fetchone()
    deadline = time.monotonic() + busy_timeout_ms / 1000
    while True:
        try:
            connection.execute(f"PRAGMA journal_mode={mode}")
        except sqlite3.OperationalError as error:
            if error_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            return


def supports_shared_memory(folder: Path) -> bool:
    """Returns whether processes can share memory through a file in `folder`, which WAL mode requires.

    They can't on a Windows drive under WSL, in a folder shared with a virtual machine and on some network file systems.
    Also returns True if no file can be created there: SQLite reports that error better.
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
