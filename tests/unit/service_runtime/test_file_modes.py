"""Access rights of new and of existing files and folders."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from service_runtime.file_modes import (
    create_private_file,
    limit_umask,
    make_data_dir,
    make_private_folder,
    open_private,
    private_umask,
    restrict,
    set_mode,
)


@pytest.fixture(autouse=True)
def _open_umask() -> Iterator[None]:
    previous = os.umask(0)
    yield
    os.umask(previous)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("before", "after"), [(0o000, 0o027), (0o022, 0o027), (0o077, 0o077), (0o137, 0o137)])
def test_umask_is_limited_but_never_loosened(before: int, after: int) -> None:
    os.umask(before)
    limit_umask()
    assert os.umask(0) == after


def test_private_umask_ends_with_its_block(tmp_path: Path) -> None:
    with private_umask():
        (tmp_path / "private").touch()
    (tmp_path / "open").touch()
    assert (mode(tmp_path / "private"), mode(tmp_path / "open")) == (0o600, 0o666)


def test_new_data_dir_is_private_and_existing_one_is_left_alone(tmp_path: Path) -> None:
    make_data_dir(tmp_path / "a" / "new")
    assert mode(tmp_path / "a" / "new") == 0o700
    (tmp_path / "existing").mkdir(0o755)
    make_data_dir(tmp_path / "existing")
    assert mode(tmp_path / "existing") == 0o755
    make_private_folder(tmp_path / "existing")
    assert mode(tmp_path / "existing") == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_data_dir(tmp_path / "file")


def test_file_is_private_whether_or_not_it_exists(tmp_path: Path) -> None:
    for path in (tmp_path / "new", tmp_path / "existing"):
        if path.name == "existing":
            path.write_text("kept")
        create_private_file(path)
        assert mode(path) == 0o600
    assert (tmp_path / "existing").read_text() == "kept"
    with open(tmp_path / "opened", "x", opener=open_private):
        assert mode(tmp_path / "opened") == 0o600


def test_rights_are_taken_away_but_not_granted(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch(0o464)
    restrict(file, 0o640)
    assert mode(file) == 0o440
    set_mode(file, 0o640)
    assert mode(file) == 0o640
    restrict(tmp_path / "missing", 0o600)
    set_mode(tmp_path / "missing", 0o600)
