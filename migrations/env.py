"""Runs migrations on the connection that `storage_service.schema` gives, inside its transaction: all or nothing."""

from __future__ import annotations

from alembic import context

from storage_service.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite alters a table by making it anew.
    transactional_ddl=True,  # Alembic would commit after each step on SQLite, which can roll back DDL like Postgres.
)
with context.begin_transaction():
    context.run_migrations()
