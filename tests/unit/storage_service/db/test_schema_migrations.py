"""Upgrades from and downgrades to every revision, with rows in every state, on both databases."""

from __future__ import annotations

from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import JSON, column, inspect, select, text

from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.db.declarative_base import Base
from storage_service.db.models import Generation
from storage_service.domain import creation, lifecycle, lineage
from storage_service.domain.creation import NewGeneration
from storage_service.domain.lineage import LineageRelation, Parent
from storage_service.maintenance.integrity import find_violations
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


@pytest.mark.parametrize("first", range(len(REVISIONS)), ids=REVISIONS)
def test_upgrade_and_downgrade_keep_every_row(empty_url: str, empty_database: Database, first: int) -> None:
    schema.upgrade(empty_url, REVISIONS[0])
    insert_old_rows(empty_url)
    schema.upgrade(empty_url, REVISIONS[first])
    rows, tables = rows_of(empty_database), tables_of(empty_database)

    schema.upgrade(empty_url)
    schema.check(empty_url)
    with empty_database.connect_for_writing() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
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


def test_downgrade_to_base_and_upgrade_rebuild_schema(empty_url: str, empty_database: Database) -> None:
    schema.upgrade(empty_url, REVISIONS[0])
    insert_old_rows(empty_url)
    schema.upgrade(empty_url)
    schema.downgrade(empty_url, "base")
    with empty_database.connect_for_writing() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    schema.upgrade(empty_url)
    assert list(find_violations(empty_database)) == []
