"""SQLite's module: Python's own, or a newer one from PyPI where Python's is too old for WAL.

Before 3.51.3 two connections could corrupt a database in WAL mode (the WAL-reset race), and what Python brings along
is older for years. PyPI has builds for Linux on x86-64; elsewhere a rollback journal does, with five syncs a commit.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING

WAL_SAFE = (3, 51, 3)

if not TYPE_CHECKING and sqlite3.sqlite_version_info < WAL_SAFE:
    with suppress(ModuleNotFoundError):
        import pysqlite3.dbapi2 as sqlite3

__all__ = ["WAL_SAFE", "sqlite3"]
