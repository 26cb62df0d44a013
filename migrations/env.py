"""Runs migrations on the connection of `storage_service.db.schema`, inside its transaction."""

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
    render_as_batch=True,  # SQLite alters a table by recreating it.
    on_version_apply=_after_step,
)
with context.begin_transaction():
    context.run_migrations()
