"""Files get free names and overwrite nothing, also when several processes place files in one folder."""

from __future__ import annotations

import errno
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.session.files.file_placement import place_file
from gateway.file_names import file_name

EACH = 25


def place(folder: Path, content: str, stem: str = "beat", companion: str = "") -> tuple[str, bool]:
    part = folder / f".{content}.part"
    part.write_text(content)
    path, is_new = place_file(part, (file_name(stem, ".wav", "id", number) for number in count(1)), companion)
    assert not part.exists()
    assert path.read_text() == content
    return path.name, is_new


def place_many(folder: Path, worker: int) -> None:
    for number in range(EACH):
        place(folder, f"{worker}.{number}", "BEAT" if worker else "beat")


def test_taken_name_gets_number_and_same_content_none(tmp_path: Path) -> None:
    assert place(tmp_path, "1") == ("beat.wav", True)
    assert place(tmp_path, "2") == ("beat (2).wav", True)
    assert place(tmp_path, "1") == ("beat.wav", False)
    assert place(tmp_path, "2") == ("beat (2).wav", False)
    assert place(tmp_path, "3", "BEAT") == ("BEAT (3).wav", True)
    assert place(tmp_path, "2", "bEaT") == ("beat (2).wav", False)
    assert sorted(os.listdir(tmp_path)) == ["BEAT (3).wav", "beat (2).wav", "beat.wav"]


def test_name_whose_companion_exists_is_taken(tmp_path: Path) -> None:
    for name in ("Beat.c2pa", "beat (2).wav", "beat (3).flac"):
        (tmp_path / name).write_text(name)
    assert place(tmp_path, "1", companion=".c2pa") == ("beat (3).wav", True)
    assert place(tmp_path, "1", companion=".c2pa") == ("beat (3).wav", False)
    assert place(tmp_path, "2") == ("beat.wav", True)


def test_what_is_not_a_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "beat.wav").mkdir()
    (tmp_path / "beat (2).wav").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "beat (3).wav")
    assert place(tmp_path, "1") == ("beat (4).wav", True)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("has_links", [True, False])
def test_concurrent_processes_keep_every_file(tmp_path: Path, has_links: bool) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, None if has_links else _lose_hard_links) as pool:
        for placed in [pool.submit(place_many, tmp_path, worker) for worker in range(2)]:
            placed.result()
    contents = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert sorted(contents.values()) == sorted(f"{worker}.{number}" for worker in range(2) for number in range(EACH))
    assert len({name.lower() for name in contents}) == 2 * EACH


def _lose_hard_links() -> None:
    os.link = _refuse(errno.EPERM)


def _refuse(number: int) -> Any:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def test_name_is_reserved_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", _refuse(errno.EPERM))
    assert place(tmp_path, "1") == ("beat.wav", True)
    assert place(tmp_path, "2") == ("beat (2).wav", True)
    monkeypatch.setattr(os, "replace", _refuse(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        place(tmp_path, "3")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".3.part", "beat (2).wav", "beat.wav"]


@pytest.mark.parametrize("failing", ["link", "open"])
def test_name_taken_by_a_program_that_does_not_lock_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    listdir = os.listdir

    def list_before_others(folder: Path) -> list[str]:
        names = listdir(folder)
        (tmp_path / "beat.wav").write_text("theirs")
        return names

    monkeypatch.setattr(os, "listdir", list_before_others)
    if failing == "open":
        monkeypatch.setattr(os, "link", _refuse(errno.ENOTSUP))
    assert place(tmp_path, "1") == ("beat (2).wav", True)
    assert (tmp_path / "beat.wav").read_text() == "theirs"


def test_other_errors_are_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", _refuse(errno.ENOSPC))
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        place(tmp_path, "1")
    assert [path.name for path in tmp_path.iterdir()] == [".1.part"]


def test_missing_file_reserves_no_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        place_file(tmp_path / "gone.part", ["beat.wav"])
    assert list(tmp_path.iterdir()) == []


def test_no_name_left_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("other")
    (tmp_path / ".part").write_text("mine")
    with pytest.raises(FileExistsError, match="no free name"):
        place_file(tmp_path / ".part", ["A.wav"])
