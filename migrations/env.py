"""Runs migrations on the connection of `storage_service.db.schema`, inside its transaction.

A migration whose schema servers of an earlier revision can use as well says so: `min_compatible = "0011"`. Without it,
only its own revision can.
"""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import Connection, inspect, text

from service_runtime.failpoints import failpoint
from storage_service.db.models import Base
from storage_service.db.schema import MIN_COMPATIBLE_COLUMN


def _after_step(ctx: Any, heads: set[str], **_: Any) -> None:
    for revision in heads:
        module = context.script.get_revision(revision).module
        _write_min_compatible(ctx.connection, getattr(module, MIN_COMPATIBLE_COLUMN, revision))
    failpoint("storage.after_migration_step")


def _write_min_compatible(connection: Connection, revision: str) -> None:
    columns = inspect(connection).get_columns("alembic_version")
    if MIN_COMPATIBLE_COLUMN not in {column["name"] for column in columns}:
        connection.execute(text(f"ALTER TABLE alembic_version ADD COLUMN {MIN_COMPATIBLE_COLUMN} VARCHAR(32)"))
    connection.execute(text(f"UPDATE alembic_version SET {MIN_COMPATIBLE_COLUMN} = :it"), {"it": revision})


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite alters a table by recreating it.
    on_version_apply=_after_step,
)
with context.begin_transaction():
    context.run_migrations()
