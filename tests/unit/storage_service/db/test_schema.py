"""Migrations in both directions, checks of the schema's revision, and concurrent first starts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from dgx_music.errors import FailedPrecondition
from service_runtime.audio.output_options import FileFormat, LoudnessProfile, OutputOptions
from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.db.models import Base, Generation
from storage_service.domain import creation
from storage_service.domain.creation import NewGeneration
from tests.support.migrated_databases import COMPARED

LATEST = schema.REVISIONS[-1]


def set_version(connection: Connection, revision: str) -> None:
    """Makes the schema one of this revision, with which no earlier version is compatible."""
    statement = text("UPDATE alembic_version SET version_num = :revision, min_compatible = :revision")
    connection.execute(statement, {"revision": revision})


def test_migration_scripts_match_known_revisions() -> None:
    scripts = ScriptDirectory(str(schema.migrations_folder()))
    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == schema.REVISIONS


def test_migrated_schema_matches_models(empty_url: str, empty_database: Database) -> None:
    schema.upgrade(empty_url)
    with empty_database.connect_for_writing() as connection:
        context = MigrationContext.configure(connection, opts=COMPARED)
        assert compare_metadata(context, Base.metadata) == []
        named = {c["name"] for c in inspect(connection).get_check_constraints("generations")}
    assert "ck_generations_status" in named


def migrate(database: Database, move: Callable[[Config, str], None], revision: str) -> None:
    """`move` is Alembic's upgrade or downgrade."""
    config = Config()
    config.set_main_option("script_location", str(schema.migrations_folder()))
    config.set_main_option("path_separator", "os")
    with database.connect_for_writing() as connection:
        config.attributes["connection"] = connection
        move(config, revision)


def test_downgrade_to_0001_and_upgrade_keep_rows(
    empty_url: str, empty_database: Database, new: Callable[..., NewGeneration]
) -> None:
    request = new(request_id="11111111-2222-4333-8444-55555555aaaa", seed=7, metadata={"a": 1})
    schema.upgrade(empty_url)
    with empty_database.write() as session:
        first = creation.create(session, request)
    migrate(empty_database, command.downgrade, "0001")
    with pytest.raises(FailedPrecondition, match="dgx-music db migrate"):
        schema.check(empty_url)
    with empty_database.connect_for_writing() as connection:
        columns = {column["name"] for column in inspect(connection).get_columns("generations")}
        assert columns.isdisjoint({"sampling", "continuation"})
        old = dict(connection.execute(text("SELECT * FROM generations")).mappings().one())
        assert old.pop("file_encoding") == "pcm_24"

    schema.upgrade(empty_url)
    schema.check(empty_url)
    with empty_database.connect_for_writing() as connection:
        [row] = connection.execute(text("SELECT * FROM generations")).mappings()
        rank = {"priority": 0, "ranked_at": old["created_at"]}
        assert row == {
            **old,
            "metadata": row["metadata"],
            "sampling": None,
            "continuation": None,
            **dict.fromkeys(("conditioning", "edit", "loop", "variation_of", "export_address", "lease_check_at")),
            "output": None,
            "rating": None,
            "client": "",
            "trace_parent": None,
            "weight": None,
            "bpm": None,
            "music_key": None,
            **rank,
        }
        compared = MigrationContext.configure(connection, opts=COMPARED)
        assert compare_metadata(compared, Base.metadata) == []
        constraints = {c["name"] for c in inspect(connection).get_check_constraints("generations")}
        assert "ck_generations_status" in constraints
    with empty_database.write() as session:
        assert creation.create(session, request).id == first.id
        assert session.get_one(Generation, first.id).metadata_ == {"a": 1}
        hot = creation.create(session, new(sampling={"temperature": 1.5, "top_k": 0}))
    with empty_database.read() as session:
        assert session.get_one(Generation, hot.id).sampling == {"temperature": 1.5, "top_k": 0}
    migrate(empty_database, command.downgrade, "0001")
    with empty_database.connect_for_writing() as connection:
        assert connection.scalar(text("SELECT count(*) FROM generations")) == 2


def test_file_encoding_is_migrated_to_output_format_and_back(
    empty_url: str, empty_database: Database, new: Callable[..., NewGeneration]
) -> None:
    asked = {"pcm_24": FileFormat.WAV_PCM_24, "pcm_16": FileFormat.WAV_PCM_16, "float": FileFormat.WAV_FLOAT}
    schema.upgrade(empty_url)
    with empty_database.write() as session:
        ids = {name: creation.create(session, new(output=OutputOptions(one))).id for name, one in asked.items()}
        mp3 = OutputOptions(FileFormat.MP3, 44_100, 1, LoudnessProfile.STREAMING, None, -2.0)
        ids["lost"] = creation.create(session, new(output=mp3)).id
    migrate(empty_database, command.downgrade, "0002")
    with empty_database.connect_for_writing() as connection:
        rows = connection.execute(text("SELECT id, file_encoding FROM generations")).all()
    assert {row.id: row.file_encoding for row in rows} == {
        **{ids[name]: name for name in asked},
        ids["lost"]: "pcm_24",
    }
    schema.upgrade(empty_url)
    with empty_database.read() as session:
        kept = {name: session.get_one(Generation, generation_id).output for name, generation_id in ids.items()}
    assert kept == {"pcm_24": None, "pcm_16": {"format": "wav_pcm_16"}, "float": {"format": "wav_float"}, "lost": None}


def test_downgrade_to_base_and_upgrade(empty_url: str, empty_database: Database) -> None:
    schema.upgrade(empty_url)
    assert schema.current(empty_url) == schema.REVISIONS[-1]
    migrate(empty_database, command.downgrade, "base")
    with empty_database.connect_for_writing() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    with pytest.raises(FailedPrecondition, match="dgx-music db migrate"):
        schema.check(empty_url)
    schema.upgrade(empty_url)
    schema.check(empty_url)


def test_repeated_upgrade_keeps_data_and_reset_deletes_it(
    url: str, database: Database, new: Callable[..., NewGeneration]
) -> None:
    with database.write() as session:
        created = creation.create(session, new())
    schema.upgrade(url)
    with database.read() as session:
        assert session.get(Generation, created.id) is not None
    schema.reset(url)
    with database.read() as session:
        assert session.get(Generation, created.id) is None
    schema.check(url)


def test_ensure_creates_schema_only_once(empty_url: str, empty_database: Database) -> None:
    assert schema.current(empty_url) is None
    with pytest.raises(FailedPrecondition, match="db migrate"):
        schema.check(empty_url)
    schema.ensure(empty_database)
    schema.ensure(empty_database)
    schema.check(empty_url)


@pytest.mark.parametrize(
    ("revision", "known", "reason", "says"),
    [
        ("9999", schema.REVISIONS, "SCHEMA_NEWER", "newer than this version supports"),
        (schema.REVISIONS[-1], (*schema.REVISIONS, "9999"), "SCHEMA_OLDER", "run `dgx-music db migrate`"),
    ],
)
def test_schema_of_other_version_is_rejected_with_hint(
    url: str,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    revision: str,
    known: tuple[str, ...],
    reason: str,
    says: str,
) -> None:
    with database.connect_for_writing() as connection:
        connection.execute(
            text("UPDATE alembic_version SET version_num = :revision, min_compatible = :revision"),
            {"revision": revision},
        )
    monkeypatch.setattr(schema, "REVISIONS", known)
    for refuse in (lambda: schema.ensure(database), lambda: schema.check(url)):
        with pytest.raises(FailedPrecondition, match=says) as raised:
            refuse()
        assert raised.value.reason == reason
    if reason == "SCHEMA_NEWER":
        with pytest.raises(FailedPrecondition, match=says):
            schema.upgrade(url)
    with database.connect_for_writing() as connection:  # as it was, for the tests that follow
        connection.execute(
            text("UPDATE alembic_version SET version_num = :revision, min_compatible = :revision"), {"revision": LATEST}
        )


def test_ensure_rejects_database_with_foreign_tables(empty_database: Database) -> None:
    with empty_database.connect_for_writing() as connection:
        connection.execute(text("CREATE TABLE prompts (x INTEGER)"))
    with pytest.raises(FailedPrecondition, match="prompts") as raised:
        schema.ensure(empty_database)
    assert raised.value.reason == "SCHEMA_UNKNOWN"


def test_failed_migration_is_rolled_back(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Exception):
        pass

    def breaks(*_: Any, **__: Any) -> None:
        raise Broken

    from alembic import op

    with monkeypatch.context() as patched:
        patched.setattr(op, "create_index", breaks)  # after the first table
        with pytest.raises(Broken):
            schema.upgrade(empty_url)
    assert schema.current(empty_url) is None
    schema.upgrade(empty_url)
    schema.check(empty_url)


def test_concurrent_first_starts_all_succeed(empty_url: str) -> None:
    program = (
        "import sys\n"
        "from storage_service.db import schema\n"
        "from storage_service.db.database import Database\n"
        "sys.stdout.write('ready\\n'); sys.stdout.flush(); sys.stdin.readline()\n"
        "database = Database(sys.argv[1])\n"
        "schema.ensure(database)\n"
        "database.dispose()\n"
    )
    command = [sys.executable, "-W", "error", "-c", program, empty_url]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with ExitStack() as stack:
        processes = [stack.enter_context(subprocess.Popen(command, text=True, **pipes)) for _ in range(3)]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [(process.communicate()[1], process.returncode) for process in processes] == [("", 0)] * 3
    schema.check(empty_url)


def test_current_schema_is_checked_without_alembic(url: str) -> None:
    program = (
        "import sys\n"
        "import storage_service.rpc.server\n"
        "from storage_service.db import schema\n"
        "from storage_service.db.database import Database\n"
        "schema.ensure(Database(sys.argv[1]))\n"
        "assert 'alembic' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, url], check=True)


def test_log_of_a_migration_is_not_about_alembic_plugins(tmp_path: Path) -> None:
    program = (
        "import logging, sys\n"
        "from storage_service.db import schema\n"
        "logging.basicConfig(level=logging.INFO)\n"
        "schema.upgrade(sys.argv[1])\n"
    )
    command = [sys.executable, "-c", program, f"sqlite:///{tmp_path / 'new.db'}"]
    log = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    assert f"Running upgrade  -> {schema.REVISIONS[0]}" in log
    assert "plugin" not in log


def test_newer_schema_is_used_if_it_is_compatible(
    url: str, database: Database, new: Callable[..., NewGeneration]
) -> None:
    """As after a migration for the next version, while servers of this one still run."""
    newer = text("UPDATE alembic_version SET version_num = '9999'")  # Compatible with the revision of before.
    with database.connect_for_writing() as connection:
        connection.execute(newer)
        connection.execute(text("ALTER TABLE generations ADD COLUMN of_the_newer_version INTEGER"))
    schema.ensure(database)
    schema.check(url)
    schema.upgrade(url)
    assert schema.current(url) == "9999"
    with database.write() as session:
        created = creation.create(session, new())
    with database.read() as session:
        assert session.get(Generation, created.id) is not None
    for refuse in (lambda: schema.reset(url), lambda: schema.downgrade(url, LATEST)):
        with pytest.raises(FailedPrecondition) as raised:
            refuse()
        assert raised.value.reason == "SCHEMA_NEWER"
    assert schema.current(url) == "9999"


def test_each_migration_says_what_it_is_compatible_with(empty_url: str, empty_database: Database) -> None:
    for revision in schema.REVISIONS:
        schema.upgrade(empty_url, revision)
        with empty_database.read() as session:
            version = session.execute(text("SELECT version_num, min_compatible FROM alembic_version")).one()
        assert version.version_num == revision
        assert version.min_compatible in schema.REVISIONS[: schema.REVISIONS.index(revision) + 1]
    schema.downgrade(empty_url, "0003")
    with empty_database.read() as session:
        assert session.scalar(text("SELECT min_compatible FROM alembic_version")) == "0003"
