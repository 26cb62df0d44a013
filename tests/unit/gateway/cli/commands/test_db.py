"""`dgx-music db …`, run in this process."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from gateway.embedded.ownership import Owner, enter
from storage_service.db import schema
from tests.support.database_commands import Command, completed, db_command


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DGX_MUSIC_DATABASE_URL", "DGX_MUSIC_DATA_DIR", "DGX_MUSIC_GATEWAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "data"


@pytest.fixture
def db(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    return db_command(data_dir, capfd)


def test_files_are_held_against_their_rows(db: Command, data_dir: Path, tmp_path: Path) -> None:
    db("init")
    good, missing, short, changed = (completed(data_dir) for _ in range(4))
    outside = completed(data_dir, path="../elsewhere.wav")
    assert db("check")[0] == 1  # The one that lies elsewhere.
    library = data_dir / "outputs/2026/01/01"
    (library / f"{missing}.wav").unlink()
    (library / f"{short}.wav").write_bytes(b"RI")
    (library / f"{changed}.wav").write_bytes(b"RIFX")
    (library / "11111111-2222-4333-8444-555555555555.wav").write_bytes(b"RIFF")
    status, out, err = db("check")
    told = dict(line.split(": ", 1) for line in out.splitlines())
    assert status == 1
    assert told == {
        f"generation {missing}": f"its file outputs/2026/01/01/{missing}.wav is missing",
        f"generation {short}": f"its file outputs/2026/01/01/{short}.wav has 2 bytes, not 4",
        f"generation {outside}": "its file ../elsewhere.wav is not in the data directory",
        "file outputs/2026/01/01/11111111-2222-4333-8444-555555555555.wav": "belongs to no generation",
    }
    assert "4 things are wrong" in err
    status, out, _ = db("check", "--files")
    assert f"generation {changed}: its file outputs/2026/01/01/{changed}.wav has changed since it landed" in out
    assert good not in out


def test_a_file_that_can_not_be_read_is_told(db: Command, data_dir: Path) -> None:
    db("init")
    made = completed(data_dir, path="outputs/" + "a" * 300)
    (data_dir / "outputs").mkdir()
    assert f"generation {made}: its file outputs/{'a' * 300} can't be read" in db("check")[1]


def test_without_a_database_there_is_nothing_to_check_or_back_up(db: Command, data_dir: Path) -> None:
    for command in ("check", "backup"):
        status, out, err = db(command)
        assert (status, out) == (1, "")
        assert "db init" in err
    assert not (data_dir / "dgx_music.db").exists()


def test_backup_check_and_restore(db: Command, data_dir: Path, tmp_path: Path) -> None:
    db("init")
    kept = completed(data_dir)
    assert "backed up to" in db("backup")[1]
    [copy] = (data_dir / "backups").iterdir()
    assert "backed up to" in db("backup", str(tmp_path / "mine.db"))[1]
    assert "--force" in db("backup", str(tmp_path / "mine.db"))[2]
    assert db("backup", str(tmp_path / "mine.db"), "--force")[0] == 0
    db("reset", "--yes")
    assert db("check")[1] == f"file outputs/2026/01/01/{kept}.wav: belongs to no generation\n"
    assert db("restore", str(copy))[0] == 0  # There is nothing to lose, and no question.
    assert "database takes" in db("vacuum")[1]
    assert db("check", "--files") == (0, "", "all is well\n")


def test_a_restore_over_rows_asks_first(
    db: Command, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db("init")
    completed(data_dir)
    copy = str(tmp_path / "copy.db")
    db("backup", copy)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    status, _, err = db("restore", copy)
    assert status == 1
    assert "Replace all that is in" in err
    status, _, err = db("restore", f"{copy}.lost")  # Nothing to ask about.
    assert status == 2
    assert f"{copy}.lost" in err
    assert "Replace" not in err
    assert db("restore", copy, "--yes")[0] == 0
    assert db("check")[0] == 0


def test_a_restored_older_schema_is_said_to_want_migrating(db: Command, data_dir: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    schema.upgrade(f"sqlite:///{old}", schema.REVISIONS[0])
    assert "db migrate" in db("restore", str(old))[1]
    assert "db migrate" in db("check")[2]
    assert schema.REVISIONS[-1] in db("migrate")[1]
    assert db("check")[0] == 0


def test_what_changes_the_whole_database_waits_for_no_server(db: Command, data_dir: Path, tmp_path: Path) -> None:
    db("init")
    copy = str(tmp_path / "copy.db")
    with enter(data_dir) as owner:
        assert isinstance(owner, Owner)
        owner.turn_away()
        assert db("backup", copy)[0] == 0
        assert db("check")[0] == 0
        for arguments in (("restore", copy, "--yes"), ("vacuum",), ("migrate",), ("reset", "--yes")):
            status, out, err = db(*arguments)
            assert (status, out) == (1, "")
            assert str(data_dir) in err


@pytest.mark.parametrize("age", ["30", "d", "-1d", "1y", ""])
def test_what_is_no_age_is_refused(db: Command, age: str) -> None:
    status, _, err = db("prune", f"--older-than={age}")
    assert status == 2
    assert "--older-than" in err
