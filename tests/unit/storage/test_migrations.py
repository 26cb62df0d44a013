"""From every revision to every other, with rows in every state, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from storage_service import schema
from storage_service.base import Base
from storage_service.check import walk
from storage_service.database import Database
from tests.old_rows import insert_old_rows, rows_of

REVISIONS = schema.REVISIONS


def tables_of(database: Database) -> dict[str, dict[str, Any]]:
    """What each table has of columns and indexes."""
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
def test_up_from_a_revision_and_back_to_it_keeps_every_row(
    empty_url: str, first: int, open_database: Callable[..., Database]
) -> None:
    schema.upgrade(empty_url, REVISIONS[0])
    insert_old_rows(empty_url)
    schema.upgrade(empty_url, REVISIONS[first])
    database = open_database(empty_url)
    rows, tables = rows_of(database), tables_of(database)

    schema.upgrade(empty_url)
    schema.check(empty_url)
    with database.connect_for_writing() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    assert list(walk(database)) == []

    schema.downgrade(empty_url, REVISIONS[first])
    assert schema.current(empty_url) == REVISIONS[first]
    assert tables_of(database) == tables
    assert rows_of(database) == rows


def test_a_schema_that_is_taken_away_and_made_again_is_whole(
    empty_url: str, open_database: Callable[..., Database]
) -> None:
    schema.upgrade(empty_url, REVISIONS[0])
    insert_old_rows(empty_url)
    schema.upgrade(empty_url)
    schema.downgrade(empty_url, "base")
    database = open_database(empty_url)
    with database.connect_for_writing() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    schema.upgrade(empty_url)
    assert list(walk(database)) == []
