"""Files that are replaced only when they are complete."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from gateway.file_replacement import replacing


@pytest.mark.parametrize("name", ["beat.wav", "x" * 251 + ".wav", "\u00e4" * 125 + ".wav"])
def test_file_of_any_legal_name_is_replaced(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("old")
    with replacing(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "beat.wav"
    path.write_text("old")
    with suppress(OSError), replacing(path) as part:
        part.write_text("half")
        raise OSError("disk")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
