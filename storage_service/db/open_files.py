"""Notices that the files of a SQLite database were deleted or replaced while they are open.

A process that has a file open can go on writing to it after its name is gone, and would acknowledge what nobody will
find again. The content of the WAL is only safe if every connection is closed before a new one is opened, because the
last one to be closed copies it into the database; so the process has to end.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from storage_service.db.error_translation import replaced

_WAL_SUFFIX = "-wal"


class OpenFiles:
    """Which files are open, by the connections of one pool."""

    def __init__(self, database: Path) -> None:
        self._paths = database, database.with_name(database.name + _WAL_SUFFIX)
        self._lock = threading.Lock()
        self._connections = 0
        self._inodes: dict[Path, int] = {}
        """Of the files that have been open since the first of the connections was."""

    def add_connection(self) -> None:
        """Call it when a connection has been opened."""
        with self._lock:
            self._connections += 1
            if self._connections == 1:
                self._inodes = {}

    def remove_connection(self) -> None:
        """Call it when a connection has been closed."""
        with self._lock:
            self._connections -= 1

    def record(self) -> None:
        """Call it after a transaction: SQLite creates the WAL with the first one."""
        with self._lock:
            for path in self._paths:
                if self._connections and path not in self._inodes and (inode := _find_inode(path)) is not None:
                    self._inodes[path] = inode

    def check(self) -> None:
        """Raises ReplacedDatabase if a file that is open no longer has its name."""
        with self._lock:
            if not self._connections:
                return
            for path, inode in self._inodes.items():
                if (current := _find_inode(path)) != inode:
                    what_happened = "deleted" if current is None else "replaced"
                    raise replaced(f"the database's file {path} was {what_happened} while it was in use")


def _find_inode(path: Path) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None
