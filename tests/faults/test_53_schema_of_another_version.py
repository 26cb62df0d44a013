"""A database of a newer version, opened by this one: every command and server that would use it says in one sentence
what to do, and changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from storage_service.config import StorageSettings
from storage_service.db.database import Database
from tests.support.command_line import InProcessShell

pytestmark = pytest.mark.slow

NEWER = "9999"
SENTENCE = f"the database's schema is at revision {NEWER}, newer than this version supports"
ADVICE = "; install the version of DGX Music that created it, or a later one"
COMMANDS = (
    "history",
    "generate house -d 1 --model sketch",
    "show 0f9b7a3e-0000-4000-8000-000000000000",
    "prompts",
    "stats",
    "token list",
    "token create laptop",
    "files list",
    "files cleanup --orphans --yes",
    "db check",
    "db migrate",
    "db prune --older-than 1d --yes",
    "db reset --yes",
    "serve",
    "serve storage",
)


@pytest.fixture
def shell(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> InProcessShell:
    return InProcessShell(tmp_path / "data", capfd)


def test_newer_schema_is_refused_by_everything_that_would_use_it(shell: InProcessShell) -> None:
    shell.run("db", "init")
    url = StorageSettings(data_dir=shell.data_dir).resolved_database_url()
    with Database(url) as database:
        with database.write() as session:
            session.execute(text("CREATE TABLE of_the_newer_version (id INTEGER PRIMARY KEY)"))
            session.execute(
                text("UPDATE alembic_version SET version_num = :new, min_compatible = :new"), {"new": NEWER}
            )
        for command in COMMANDS:
            done = shell.run(*command.split(), status=1, DGX_MUSIC_STORAGE_ADDRESS=f"unix:{shell.data_dir}/s")
            [line] = [line for line in done.stderr.splitlines() if "revision" in line]
            assert SENTENCE in line, command
            assert ADVICE in line, command
            assert "Traceback" not in done.stderr
        with database.read() as session:
            assert session.scalar(text("SELECT version_num FROM alembic_version")) == NEWER
            assert session.scalar(text("SELECT count(*) FROM of_the_newer_version")) == 0
