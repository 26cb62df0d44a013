"""Files that are open are told from files of the same name."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage_service.db.error_translation import ReplacedDatabase
from storage_service.db.open_files import OpenFiles


def test_open_files_must_keep_their_names(tmp_path: Path) -> None:
    path, wal = tmp_path / "a.db", tmp_path / "a.db-wal"
    path.touch()
    files = OpenFiles(path)
    files.check()  # Nothing is open.
    files.add_connection()
    files.record()
    wal.touch()
    files.check()
    files.record()
    files.check()
    wal.unlink()
    with pytest.raises(ReplacedDatabase, match=r"a\.db-wal was deleted.*restart"):
        files.check()
    wal.touch()
    path.rename(tmp_path / "kept")
    path.touch()
    with pytest.raises(ReplacedDatabase, match=r"was replaced"):
        files.check()


def test_files_of_closed_connections_may_change(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.touch()
    files = OpenFiles(path)
    files.add_connection()
    files.record()
    files.remove_connection()
    path.rename(tmp_path / "kept")
    files.check()
    path.touch()
    files.add_connection()
    files.check()
    files.record()
    files.check()
