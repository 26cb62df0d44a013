"""`dgx-music db …`, run in this process."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.cli.main import run
from gateway.embedded.ownership import Owner, acquire_or_join
from storage_service.config import StorageSettings
from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.domain import creation
from storage_service.domain.creation import NewGeneration

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DGX_MUSIC_DATABASE_URL", "DGX_MUSIC_DATA_DIR", "DGX_MUSIC_GATEWAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "data"


@pytest.fixture
def db(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs `dgx-music db …`: the exit status, standard output, standard error."""

    def command(*arguments: str) -> tuple[int, str, str]:
        status = run(["--data-dir", str(data_dir), "db", *arguments])
        said = capfd.readouterr()
        return status, said.out, said.err

    return command


def completed(data_dir: Path, *, path: str | None = None, audio: bytes = b"RIFF", days_ago: int = 0) -> str:
    """A generation that is COMPLETED, with its file; gives its id."""
    with Database(StorageSettings(data_dir=data_dir).resolved_database_url()) as database, database.write() as session:
        made = creation.create(session, NewGeneration("a calm piano", "sketch", 1.0, 32000, 2)).id
        file = path or f"outputs/2026/01/01/{made}.wav"
        session.execute(
            text(
                "UPDATE generations SET status = 'completed', attempt = 1, progress = 1, generation_time_seconds = 1, "
                "created_at = datetime('now', :ago), started_at = datetime('now', :ago), "
                "completed_at = datetime('now', :ago), file_path = :path, file_size_bytes = :size, "
                "metadata = json_object('file_sha256', :sha256) WHERE id = :id"
            ),
            {
                "id": made,
                "path": file,
                "size": len(audio),
                "sha256": hashlib.sha256(audio).hexdigest(),
                "ago": f"-{days_ago} days",
            },
        )
    if path is None:
        (data_dir / file).parent.mkdir(parents=True, exist_ok=True)
        (data_dir / file).write_bytes(audio)
    return made


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


def test_a_damaged_database_is_told(db: Command, data_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    db("init")
    file = data_dir / "dgx_music.db"
    content = bytearray(file.read_bytes())
    content[4096:12288] = b"\xff" * 8192
    file.write_bytes(content)
    status, out, _ = db("check")
    assert status == 1
    assert all(line.startswith("database: ") for line in out.splitlines())
    file.write_bytes(b"not a database " * 1000)
    for command in ("list", "doctor"):
        run(["--data-dir", str(data_dir), command])
        assert "not a database; restore a backup with: dgx-music db restore" in "".join(capfd.readouterr())
    status, out, err = db("check")
    assert (status, out) == (1, "")
    assert "not a database" in err
    assert [path.name for path in data_dir.iterdir() if path.name.startswith(".")] == []


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


@pytest.mark.parametrize(("revision", "advice"), [("0001", "dgx-music db migrate"), ("9999", "install the version")])
def test_a_schema_of_another_version_is_refused_in_one_line(
    db: Command, data_dir: Path, capfd: pytest.CaptureFixture[str], revision: str, advice: str
) -> None:
    db("init")
    with Database(StorageSettings(data_dir=data_dir).resolved_database_url()) as database, database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    for command in (["list"], ["db", "check"]):
        assert run(["--data-dir", str(data_dir), *command]) == 1
        [line] = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
        assert revision in line
        assert advice in line


def test_what_changes_the_whole_database_waits_for_no_server(db: Command, data_dir: Path, tmp_path: Path) -> None:
    db("init")
    copy = str(tmp_path / "copy.db")
    with acquire_or_join(data_dir) as owner:
        assert isinstance(owner, Owner)
        owner.refuse_clients()
        assert db("backup", copy)[0] == 0
        assert db("check")[0] == 0
        for arguments in (("restore", copy, "--yes"), ("vacuum",), ("migrate",), ("reset", "--yes")):
            status, out, err = db(*arguments)
            assert (status, out) == (1, "")
            assert str(data_dir) in err


def test_what_finished_long_ago_goes_with_its_file(db: Command, data_dir: Path) -> None:
    db("init")
    old = [completed(data_dir, days_ago=40) for _ in range(5)]
    young = completed(data_dir, days_ago=20)
    status, out, _ = db("prune", "--older-than", "30d")
    assert status == 0
    assert out.startswith("would delete 5 generations")
    assert len(list((data_dir / "outputs").rglob("*.wav"))) == 6
    assert db("prune", "--older-than", "30d", "--yes")[1].startswith("deleted 5 generations")
    assert [file.stem for file in (data_dir / "outputs").rglob("*.wav")] == [young]
    assert not set(old) & set(db("check")[1].split())
    assert db("prune", "--older-than", "4w", "--dry-run")[1].startswith("would delete 0")
    assert db("check")[0] == 0


@pytest.mark.parametrize("age", ["30", "d", "-1d", "1y", ""])
def test_what_is_no_age_is_refused(db: Command, age: str) -> None:
    status, _, err = db("prune", f"--older-than={age}")
    assert status == 2
    assert "--older-than" in err
