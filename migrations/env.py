"""Runs migrations on the connection that `storage_service.db.schema` gives, inside its transaction: all or nothing."""

from __future__ import annotations

from typing import Any

from alembic import context

from service_runtime.failpoints import failpoint
from storage_service.db.models import Base


def _after_step(**_: Any) -> None:
    failpoint("storage.after_migration_step")


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite alters a table by making it anew.
    on_version_apply=_after_step,
    transactional_ddl=True,  # Alembic would commit after each step on SQLite, which can roll back DDL like Postgres.
)
with context.begin_transaction():
    context.run_migrations()
