"""Folders for unfinished copies."""

from __future__ import annotations

import stat
from pathlib import Path

from storage_service.maintenance.temporary_copies import SUFFIX, temporary_folder


def test_folder_is_private_and_deleted_with_what_is_in_it(tmp_path: Path) -> None:
    with temporary_folder(tmp_path / "a.db") as folder:
        assert (folder.parent, stat.S_IMODE(folder.stat().st_mode)) == (tmp_path, 0o700)
        (folder / "a.db").write_bytes(b"copy")
    assert list(tmp_path.iterdir()) == []


def test_abandoned_folder_is_removed_and_one_in_use_is_kept(tmp_path: Path) -> None:
    abandoned, others = tmp_path / f".b.db.x{SUFFIX}", tmp_path / ".b.db.copy"
    for folder in (abandoned, others):
        folder.mkdir()
        (folder / "b.db").write_bytes(b"copy")
    (tmp_path / f"link{SUFFIX}").symlink_to(others)
    with temporary_folder(tmp_path / "a.db") as first, temporary_folder(tmp_path / "a.db") as second:
        assert {path.name for path in tmp_path.iterdir()} == {
            first.name,
            second.name,
            others.name,
            f"link{SUFFIX}",
        }
    assert (others / "b.db").read_bytes() == b"copy"
