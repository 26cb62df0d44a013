"""Every kind of file that should not be in the library or the spool is found, and none that should."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.cli.commands.database.db_check import find_problems
from gateway.embedded.ownership import Owner, acquire_or_join
from storage_service.config import StorageSettings
from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.domain.creation import NewGeneration
from tests.support.database_commands import completed
from tests.support.legal_rows import insert_row

DAY = "outputs/2026/01/01"
NOBODY, OTHER = "11111111-2222-4333-8444-555555555555", "21111111-2222-4333-8444-555555555555"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    schema.upgrade(StorageSettings(data_dir=tmp_path).resolved_database_url())
    (tmp_path / "outputs").mkdir()
    return tmp_path


@pytest.fixture
def database(data_dir: Path, open_database: Callable[..., Database]) -> Database:
    return open_database(StorageSettings(data_dir=data_dir).resolved_database_url())


def write(data_dir: Path, *paths: str) -> None:
    for path in paths:
        (data_dir / path).parent.mkdir(parents=True, exist_ok=True)
        (data_dir / path).write_bytes(b"RIFF")


def problems(database: Database, data_dir: Path, *, read_files: bool = False) -> dict[str, str]:
    found = find_problems(database, data_dir, read_files=read_files, settle_seconds=0.0)
    return {finding.where.partition(" ")[2]: finding.problem for finding in found}


def row(database: Database, status: str) -> str:
    return insert_row(database, lambda: NewGeneration("a calm piano", "sketch", 1.0, 32000, 2), status).id


def test_files_that_do_not_belong_are_found(database: Database, data_dir: Path) -> None:
    done, failed, waiting = completed(data_dir), row(database, "failed"), row(database, "pending")
    with database.write() as session:
        session.execute(text(f"UPDATE generations SET path = NULL WHERE id = '{failed}'".replace("path", "file_path")))
    write(data_dir, f"{DAY}/{done}.c2pa", f"{DAY}/{waiting}.flac", f"clips/2026/01/01/{OTHER}.wav")
    write(data_dir, f"spool/{done}.1.pcm", f"renders/{done}/{OTHER}.flac", f"renders/{done}/{OTHER}.json")
    write(data_dir, f"spool/{waiting}.1.pcm.part", f"spool/{waiting}.1.json", "spool/.nfs0001")
    assert problems(database, data_dir) == {}
    bad = {
        f"{DAY}/{NOBODY}.wav": "belongs to no generation",
        f"{DAY}/{done}.flac": f"is not the file of its generation, which is {DAY}/{done}.wav",
        f"{DAY}/{failed}.wav": "belongs to a generation that is FAILED",
        f"{DAY}/{OTHER}.c2pa": "belongs to a file that does not exist",
        f"{DAY}/notes.txt": "is not part of the library",
        "outputs/2026/song.wav": "is not part of the library",
        f"outputs/.landing/{done}.0.part": "is left over from a file that was not completed",
        f"clips/.landing/{OTHER}.upload.part": "is left over from a file that was not completed",
        f"renders/.landing/{OTHER}.part": "is left over from a file that was not completed",
        f"renders/{NOBODY}/{OTHER}.json": "belongs to a file that does not exist",
        f"renders/{done}/{NOBODY}.flac": "has no description",
        "spool/what": "is not part of the library",
        f"spool/{NOBODY}.1.pcm": "belongs to no generation",
        f"spool/{waiting}.2.pcm.part": "is left over from an attempt that has ended",
    }
    write(data_dir, *bad)
    links = {
        f"{DAY}/{uuid.uuid4()}.wav": data_dir / DAY / f"{done}.wav",
        "clips/2027": data_dir,
        "spool/link": data_dir / "lost",
    }
    for path, target in links.items():
        (data_dir / path).symlink_to(target)
    os.mkfifo(data_dir / DAY / f"{OTHER}.wav")
    (data_dir / DAY / f"{done}.aiff").mkdir()
    expected = {**bad, **dict.fromkeys(links, "is a symbolic link")}
    expected |= {f"{DAY}/{OTHER}.wav": "is not a file", f"{DAY}/{done}.aiff": "is not a file"}
    expected[f"{DAY}/{OTHER}.c2pa"] = "belongs to no generation"  # The pipe has the name of its file.
    assert problems(database, data_dir) == expected


def test_files_that_a_running_server_writes_are_none_of_them(database: Database, data_dir: Path) -> None:
    running = row(database, "processing")
    staged = f"outputs/.landing/{running}.1.part", f"renders/.landing/{OTHER}.part", f"spool/{running}.1.pcm.part"
    write(data_dir, *staged)
    assert problems(database, data_dir).keys() == set(staged)
    with acquire_or_join(data_dir) as owner:
        assert isinstance(owner, Owner)
        assert problems(database, data_dir) == {}
        os.utime(data_dir / staged[0], (0, 0))  # A model that takes long for its next step.
        os.utime(data_dir / staged[1], (0, 0))
        assert problems(database, data_dir).keys() == {staged[1]}
        with database.write() as session:
            session.execute(text("UPDATE generations SET attempt = 2"))
        assert problems(database, data_dir).keys() == set(staged)


def test_problem_that_ends_meanwhile_is_not_reported(
    database: Database, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, odd = completed(data_dir), completed(data_dir)
    files = {one: data_dir / DAY / f"{one}.wav" for one in (lost, odd)}
    files[lost].unlink()
    files[odd].write_bytes(b"RIFX")
    looks = []

    def settle(_: float) -> None:
        looks.append(1)
        with database.write() as session:
            if len(looks) == 1:
                session.execute(text(f"DELETE FROM generations WHERE id = '{lost}'"))
                files[odd].write_bytes(b"RIFXX")  # Another edit of its tags.
            elif len(looks) == 2:
                files[odd].write_bytes(b"RIFF")

    monkeypatch.setattr("time.sleep", settle)
    assert problems(database, data_dir, read_files=True) == {}
    assert len(looks) == 2


def test_linked_and_shared_files_are_found(database: Database, data_dir: Path) -> None:
    done, linked, twin = completed(data_dir), completed(data_dir), completed(data_dir)
    with database.write() as session:
        session.execute(text(f"UPDATE generations SET file_path = '{DAY}/{done}.wav' WHERE id = '{twin}'"))
    (data_dir / DAY / f"{twin}.wav").unlink()
    (data_dir / DAY / f"{linked}.wav").unlink()
    (data_dir / DAY / f"{linked}.wav").symlink_to(data_dir / DAY / f"{done}.wav")
    found = {finding.where: finding.problem for finding in find_problems(database, data_dir, read_files=True)}
    assert found == {
        f"file {DAY}/{done}.wav": "belongs to more than one generation",
        f"generation {linked}": f"its file {DAY}/{linked}.wav is a symbolic link",
        f"file {DAY}/{linked}.wav": "is a symbolic link",
    }
