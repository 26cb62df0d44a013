"""Upgrades from and downgrades to every revision, with rows in every state, on both databases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import JSON, column, inspect, select, text
from sqlalchemy.orm import Session

from dgx_music.errors import FailedPrecondition
from service_runtime.rpc.paging import Page
from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.db.declarative_base import Base
from storage_service.db.models import Generation, Prompt
from storage_service.domain import creation, lifecycle, lineage, listing
from storage_service.domain.comparisons.comparison_creation import NewComparison, create_comparison
from storage_service.domain.comparisons.comparison_listing import list_comparisons
from storage_service.domain.creation import NewGeneration
from storage_service.domain.lineage import LineageRelation, Parent
from storage_service.maintenance.integrity import find_violations
from tests.support.migrated_databases import COMPARED
from tests.support.old_rows import insert_old_rows, rows_of

REVISIONS = schema.REVISIONS


def tables_of(database: Database) -> dict[str, dict[str, Any]]:
    """Returns the columns and indexes of each table."""
    with database.connect_for_writing() as connection:
        inspector = inspect(connection)
        return {
            table: {
                "columns": {
                    column["name"]: (str(column["type"]), column["nullable"]) for column in inspector.get_columns(table)
                },
                "indexes": sorted(
                    (str(index["name"]), index["column_names"], index["unique"])
                    for index in inspector.get_indexes(table)
                ),
            }
            for table in inspector.get_table_names()
        }


@pytest.mark.parametrize(
    "first",
    [
        0,
        *(pytest.param(one, marks=pytest.mark.slow) for one in range(1, len(REVISIONS) - 2)),
        len(REVISIONS) - 2,
        len(REVISIONS) - 1,
    ],
    ids=REVISIONS,
)
def test_upgrade_and_downgrade_keep_every_row(empty_url: str, empty_database: Database, first: int) -> None:
    schema.upgrade(empty_url, REVISIONS[0])
    insert_old_rows(empty_url)
    schema.upgrade(empty_url, REVISIONS[first])
    rows, tables = rows_of(empty_database), tables_of(empty_database)

    schema.upgrade(empty_url)
    schema.check(empty_url)
    with empty_database.connect_for_writing() as connection:
        context = MigrationContext.configure(connection, opts=COMPARED)
        assert compare_metadata(context, Base.metadata) == []
    assert list(find_violations(empty_database)) == []

    schema.downgrade(empty_url, REVISIONS[first])
    assert schema.current(empty_url) == REVISIONS[first]
    assert tables_of(empty_database) == tables
    assert rows_of(empty_database) == rows


def test_downgrade_to_0004_unpacks_metadata(empty_url: str, empty_database: Database) -> None:
    schema.upgrade(empty_url)
    known = [{"bpm": 84.0, "key": "ä minor"}, {"bpm": 84.0, "pcm_sha256": "0f" * 32, "instruments": "bells, " * 40}]
    with empty_database.write() as session:
        for metadata in known:
            creation.create(session, NewGeneration("piano", "sketch", 4.0, 32000, 2, metadata=metadata))
    schema.downgrade(empty_url, "0004")
    with empty_database.read() as session:
        kept = session.scalars(select(column("metadata", JSON)).select_from(text("generations"))).all()
    assert sorted(map(len, kept)) == [2, 3]
    assert all(dict(one) in known for one in kept)
    schema.upgrade(empty_url)
    with empty_database.read() as session:
        assert all(dict(one.metadata_) in known for one in session.scalars(select(Generation)))
    assert list(find_violations(empty_database)) == []


def test_downgrade_to_0005_forgets_ratings(empty_url: str, empty_database: Database) -> None:
    schema.upgrade(empty_url)
    with empty_database.write() as session:
        rated = creation.create(session, NewGeneration("piano", "sketch", 4.0, 32000, 2)).id
        lifecycle.rate(session, rated, 5)
    schema.downgrade(empty_url, "0005")
    schema.upgrade(empty_url)
    with empty_database.read() as session:
        assert session.get_one(Generation, rated).rating is None


def test_upgrade_to_0008_finds_what_was_continued(empty_url: str, empty_database: Database) -> None:
    schema.upgrade(empty_url)
    with empty_database.write() as session:
        source = creation.create(session, NewGeneration("piano", "sketch", 4.0, 32000, 2)).id
        continuation = {"source_id": source, "seconds": 10.0}
        new = NewGeneration("more", "sketch", 4.0, 32000, 2, continuation=continuation)
        continued = creation.create(session, new).id
    schema.downgrade(empty_url, "0007")
    schema.upgrade(empty_url)
    with empty_database.read() as session:
        nodes, _ = lineage.read_lineage(session, source)
    assert [node.id for node in nodes] == [source, continued]
    assert nodes[1].parents == (Parent(source, LineageRelation.CONTINUATION),)


def test_downgrade_to_0011_forgets_comparisons(empty_url: str, empty_database: Database) -> None:
    schema.upgrade(empty_url, REVISIONS[0])
    insert_old_rows(empty_url, copies=2)
    schema.upgrade(empty_url)
    ids = [f"{copy:08x}-0000-4000-8000-000000000003" for copy in range(2)]
    for _ in range(2):
        with empty_database.write() as session:
            create_comparison(session, NewComparison(ids))
        with empty_database.read() as session:
            assert len(list_comparisons(session, ids[1], Page())[0]) == 1
        schema.downgrade(empty_url, "0011")
        schema.upgrade(empty_url)
    with empty_database.write() as session:
        lifecycle.remove(session, ids[0])
    assert list(find_violations(empty_database)) == []


def test_upgrade_to_0013_finds_earlier_music_by_tempo_and_key(empty_url: str, empty_database: Database) -> None:
    schema.upgrade(empty_url)
    long = {"instruments": "bells, " * 60}  # It is packed.
    known = [{"bpm": 84.0}, {"measured_key": "A# major", "measured_bpm": 120.5, **long}, {"key": "?"}, long]
    with empty_database.write() as session:
        for number, metadata in enumerate(known):
            creation.create(session, NewGeneration(f"take {number}", "sketch", 4.0, 32000, 2, metadata=metadata))
    schema.downgrade(empty_url, "0012")
    schema.upgrade(empty_url)
    with empty_database.read() as session:
        rows = session.execute(select(Generation.prompt, Generation.bpm, Generation.music_key)).all()
        by_key, _ = listing.list_generations(session, listing.GenerationFilter(key="Bb major"), Page())
    assert sorted(map(tuple, rows), key=str) == [
        ("take 0", 84.0, None),
        ("take 1", 120.5, "Bb major"),
        ("take 2", None, None),
        ("take 3", None, None),
    ]
    assert [row.prompt for row in by_key] == ["take 1"]


def prompts_with(session: Session, needle: str) -> list[Prompt]:
    return listing.list_prompts(session, listing.PromptOrder.MOST_USED, needle, Page())[0]


def test_upgrade_to_0009_finds_text_of_earlier_prompts(empty_url: str, empty_database: Database) -> None:
    schema.upgrade(empty_url, REVISIONS[0])
    insert_old_rows(empty_url)
    schema.upgrade(empty_url)
    with empty_database.read() as session:
        for needle, number in (("PROMPT", 6), ("t 3", 1), ("3", 1), ("é", 0)):
            assert (
                len(listing.list_generations(session, listing.GenerationFilter(prompt_contains=needle), Page())[0])
                == number
            )
            assert len(prompts_with(session, needle)) == number


def test_sqlite_without_trigrams_is_refused_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/own.db"
    load = ScriptDirectory._load_revisions

    def without_trigrams(self: ScriptDirectory) -> Any:
        for script in load(self):
            if script.revision == "0009":
                script.module.TOKENIZER = "unknown"
            yield script

    monkeypatch.setattr(ScriptDirectory, "_load_revisions", without_trigrams)
    with pytest.raises(FailedPrecondition, match=r"no such tokenizer: unknown.*DGX_MUSIC_DATABASE_URL"):
        schema.upgrade(url)
    monkeypatch.undo()
    assert schema.current(url) is None
    schema.upgrade(url)


def test_preparation_of_0009_can_be_interrupted_and_repeated_while_prompts_come(
    empty_url: str, empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    if empty_database.is_sqlite:
        pytest.skip("SQLite has one writer, which waits")
    schema.upgrade(empty_url, "0008")
    add = text(
        "INSERT INTO prompts (text, text_sha256, used_count, first_used_at, last_used_at) "
        "SELECT CAST(:text AS TEXT), left(encode(sha256(convert_to(:text, 'UTF8')), 'hex'), 32), 1, now(), now()"
    )
    with empty_database.write() as session:
        session.execute(add, {"text": "before"})
    migration = ScriptDirectory(str(schema.migrations_folder())).get_revision("0009").module

    class Interrupted(Exception):
        pass

    steps = ("_create_postgres_table", "_fill_postgres_table")
    for step in steps:
        with monkeypatch.context() as patched, empty_database.outside_transactions() as connection:
            original = getattr(migration, step)

            def interrupt(connection: Any, original: Any = original) -> None:
                original(connection)
                raise Interrupted

            patched.setattr(migration, step, interrupt)
            with pytest.raises(Interrupted):
                migration.prepare(connection)
        with empty_database.write() as session:
            session.execute(add, {"text": f"after {step}"})
    with empty_database.outside_transactions() as connection:
        migration.prepare(connection)
        # As an interrupted CREATE INDEX CONCURRENTLY leaves it.
        connection.execute(
            text("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_generations_prompt'::regclass")
        )
    with empty_database.write() as session:
        session.execute(add, {"text": "at last"})
    schema.upgrade(empty_url)
    assert [finding for finding in find_violations(empty_database) if finding.where != "prompt"] == []
    with empty_database.read() as session:
        for needle, number in (("before", 1), ("fter", 2), ("last", 1)):
            assert len(prompts_with(session, needle)) == number


def test_downgrade_to_base_and_upgrade_rebuild_schema(empty_url: str, empty_database: Database) -> None:
    schema.upgrade(empty_url, REVISIONS[0])
    insert_old_rows(empty_url)
    schema.upgrade(empty_url)
    schema.downgrade(empty_url, "base")
    with empty_database.connect_for_writing() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    schema.upgrade(empty_url)
    assert list(find_violations(empty_database)) == []
