"""`dgx-music db …` together with commands that open the database through embedded services."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.cli.main import run
from storage_service.config import StorageSettings
from storage_service.db.database import Database
from tests.support.database_commands import Command, completed, db_command


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DGX_MUSIC_DATABASE_URL", "DGX_MUSIC_DATA_DIR", "DGX_MUSIC_GATEWAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "data"


@pytest.fixture
def db(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    return db_command(data_dir, capfd)


def test_damaged_database_is_reported_by_every_command(
    db: Command, data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    db("init")
    file = data_dir / "dgx_music.db"
    content = bytearray(file.read_bytes())
    content[4096:12288] = b"\xff" * 8192
    file.write_bytes(content)
    status, out, _ = db("check")
    assert status == 1
    assert all(line.startswith("database: ") for line in out.splitlines())
    file.write_bytes(b"not a database " * 1000)
    for command in ("history", "doctor"):
        run(["--data-dir", str(data_dir), command])
        assert "not a database; restore a backup with: dgx-music db restore" in "".join(capfd.readouterr())
    status, out, err = db("check")
    assert (status, out) == (1, "")
    assert "not a database" in err
    assert [path.name for path in data_dir.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(("revision", "advice"), [("0001", "dgx-music db migrate"), ("9999", "install the version")])
def test_schema_of_another_version_is_rejected_with_advice(
    db: Command, data_dir: Path, capfd: pytest.CaptureFixture[str], revision: str, advice: str
) -> None:
    db("init")
    with Database(StorageSettings(data_dir=data_dir).resolved_database_url()) as database, database.write() as session:
        session.execute(
            text("UPDATE alembic_version SET version_num = :revision, min_compatible = :revision"),
            {"revision": revision},
        )
    for command in (["history"], ["db", "check"]):
        assert run(["--data-dir", str(data_dir), *command]) == 1
        [line] = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
        assert revision in line
        assert advice in line


def test_prune_deletes_old_generations_with_their_files(db: Command, data_dir: Path) -> None:
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
