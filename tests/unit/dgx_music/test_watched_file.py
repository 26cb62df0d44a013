"""Files that are replaced while they are in use."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgx_music.watched_file import WatchedFile


def test_content_is_read_again_only_after_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text(" one \n")
    watched = WatchedFile(file)
    assert watched.read() == "one"
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", lambda self: pytest.fail("read again"))
        assert watched.read() == "one"
    replacement = tmp_path / "new"
    replacement.write_text("two")
    replacement.replace(file)
    assert watched.read() == "two"


def test_content_is_kept_while_the_file_is_away(tmp_path: Path) -> None:
    file = tmp_path / "token"
    watched = WatchedFile(file)
    with pytest.raises(FileNotFoundError):
        watched.read()
    file.write_text("one")
    assert watched.read() == "one"
    file.unlink()
    assert watched.read() == "one"
    file.write_bytes(b"\xff")
    assert watched.read() == "one"
    file.write_text("three")
    assert watched.read() == "three"
