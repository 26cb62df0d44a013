"""`dgx-music db …` on a data directory without a server."""

from __future__ import annotations

import io
from contextlib import closing
from pathlib import Path

import pytest

from gateway.embedded.ownership import Owner, acquire_or_join
from storage_service.db import schema
from storage_service.db.sqlite import sqlite3
from tests.support.database_commands import Command, completed, db_command


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DGX_MUSIC_DATABASE_URL", "DGX_MUSIC_DATA_DIR", "DGX_MUSIC_GATEWAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "data"


@pytest.fixture
def db(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    return db_command(data_dir, capfd)


def test_check_reports_files_that_differ_from_their_rows(db: Command, data_dir: Path, tmp_path: Path) -> None:
    db("init")
    good, missing, short, changed = (completed(data_dir) for _ in range(4))
    outside = completed(data_dir, path="../elsewhere.wav")
    assert db("check")[0] == 1  # The file outside the data directory.
    library = data_dir / "outputs/2026/01/01"
    (library / f"{missing}.wav").unlink()
    (library / f"{short}.wav").write_bytes(b"RI")
    (library / f"{changed}.wav").write_bytes(b"RIFX")
    (library / "11111111-2222-4333-8444-555555555555.wav").write_bytes(b"RIFF")
    status, out, err = db("check")
    problems = dict(line.partition(" (")[0].split(": ", 1) for line in out.splitlines())
    assert status == 1
    assert problems == {
        f"generation {missing}": f"its file outputs/2026/01/01/{missing}.wav is missing",
        f"generation {short}": f"its file outputs/2026/01/01/{short}.wav has 2 bytes, not 4",
        f"generation {outside}": "its file ../elsewhere.wav is outside the data directory",
        "file outputs/2026/01/01/11111111-2222-4333-8444-555555555555.wav": "belongs to no generation",
    }
    assert "problems found: 4" in err
    status, out, _ = db("check", "--files")
    assert f"generation {changed}: its file outputs/2026/01/01/{changed}.wav has changed since it was written" in out
    assert good not in out


def test_check_reports_unreadable_file(db: Command, data_dir: Path) -> None:
    db("init")
    generation_id = completed(data_dir, path="outputs/" + "a" * 300)
    (data_dir / "outputs").mkdir()
    assert f"generation {generation_id}: failed to read its file outputs/{'a' * 300}" in db("check")[1]


def test_check_and_backup_without_database_fail(db: Command, data_dir: Path) -> None:
    for command in ("check", "backup"):
        status, out, err = db(command)
        assert (status, out) == (1, "")
        assert "db init" in err
    assert not (data_dir / "dgx_music.db").exists()


def test_backup_is_restored_completely(db: Command, data_dir: Path, tmp_path: Path) -> None:
    db("init")
    generation_id = completed(data_dir)
    assert "backed up the database to" in db("backup")[1]
    [copy] = (data_dir / "backups").iterdir()
    assert "backed up the database to" in db("backup", str(tmp_path / "mine.db"))[1]
    assert "--force" in db("backup", str(tmp_path / "mine.db"))[2]
    assert db("backup", str(tmp_path / "mine.db"), "--force")[0] == 0
    db("reset", "--yes")
    assert f"file outputs/2026/01/01/{generation_id}.wav: belongs to no generation (" in db("check")[1]
    assert db("restore", str(copy))[0] == 0  # An empty database is replaced without confirmation.
    assert "reduced the database" in db("vacuum")[1]
    assert db("check", "--files") == (0, "", "no problems found\n")


def test_damaged_text_index_is_found_and_rebuilt(db: Command, data_dir: Path) -> None:
    db("init")
    completed(data_dir)
    with closing(sqlite3.connect(data_dir / "dgx_music.db")) as connection, connection:
        connection.execute("INSERT INTO prompt_search(prompt_search) VALUES ('delete-all')")
    status, out, _ = db("check")
    assert (status, out) == (1, "text index: differs from the prompts (run `dgx-music db reindex`)\n")
    assert db("reindex")[1].startswith("rebuilt the text index: sqlite:///")
    assert db("check") == (0, "", "no problems found\n")


def test_restore_over_rows_asks_for_confirmation(
    db: Command, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db("init")
    completed(data_dir)
    copy = str(tmp_path / "copy.db")
    db("backup", copy)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    status, _, err = db("restore", copy)
    assert status == 1
    assert "Replace everything in" in err
    status, _, err = db("restore", f"{copy}.lost")  # Rejected without asking.
    assert status == 2
    assert f"{copy}.lost" in err
    assert "Replace" not in err
    assert db("restore", copy, "--yes")[0] == 0
    assert db("check")[0] == 0


def test_restore_of_older_schema_suggests_migration(db: Command, data_dir: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    schema.upgrade(f"sqlite:///{old}", schema.REVISIONS[0])
    assert "db migrate" in db("restore", str(old))[1]
    assert "db migrate" in db("check")[2]
    assert schema.REVISIONS[-1] in db("migrate")[1]
    assert db("check")[0] == 0


def test_commands_that_replace_database_are_rejected_while_it_is_owned(
    db: Command, data_dir: Path, tmp_path: Path
) -> None:
    db("init")
    copy = str(tmp_path / "copy.db")
    with acquire_or_join(data_dir) as owner:
        assert isinstance(owner, Owner)
        owner.refuse_clients()
        assert db("backup", copy)[0] == 0
        assert db("check")[0] == 0
        for arguments in (("restore", copy, "--yes"), ("vacuum",), ("reindex",), ("migrate",), ("reset", "--yes")):
            status, out, err = db(*arguments)
            assert (status, out) == (1, "")
            assert str(data_dir) in err


@pytest.mark.parametrize("age", ["30", "d", "-1d", "1y", ""])
def test_prune_with_invalid_age_is_rejected(db: Command, age: str) -> None:
    status, _, err = db("prune", f"--older-than={age}")
    assert status == 2
    assert "--older-than" in err
