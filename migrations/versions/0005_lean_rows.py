"""Smaller rows: long metadata is packed, and ids are UUIDs in Postgres."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

BATCH_ROWS = 1000


def upgrade() -> None:
    # Existing rows stay readable and are not rewritten. In SQLite, a column holds both text and blobs.
    if op.get_bind().dialect.name == "postgresql":
        _alter(
            "id TYPE UUID USING id::UUID",
            "request_id TYPE UUID USING request_id::UUID",
            "metadata TYPE BYTEA USING convert_to(metadata::TEXT, 'UTF8')",
        )


def downgrade() -> None:
    _unpack_metadata()
    if op.get_bind().dialect.name == "postgresql":
        _alter(
            "id TYPE TEXT USING id::TEXT",
            "request_id TYPE TEXT USING request_id::TEXT",
            "metadata TYPE JSON USING convert_from(metadata, 'UTF8')::JSON",
        )


def _alter(*columns: str) -> None:
    """Alters all columns in one statement, so that the table is rewritten only once."""
    op.execute(f"ALTER TABLE generations {', '.join(f'ALTER COLUMN {column}' for column in columns)}")


def _unpack_metadata() -> None:
    from storage_service.db.types import unpack_json  # It reads everything that was ever packed.

    connection = op.get_bind()
    is_sqlite = connection.dialect.name == "sqlite"
    rows = sa.table("generations", sa.column("id"), sa.column("metadata", sa.LargeBinary))
    is_packed = sa.func.typeof(rows.c.metadata) == "blob" if is_sqlite else sa.func.get_byte(rows.c.metadata, 0) == 1
    packed = sa.select(rows.c.id, rows.c.metadata).where(is_packed).limit(BATCH_ROWS)
    column = sa.column("metadata", sa.Text) if is_sqlite else rows.c.metadata
    while found := connection.execute(packed).all():
        unpacked: list[dict[str, Any]] = []
        for key, stored in found:
            as_json = bytes(unpack_json(bytes(stored)))
            unpacked.append({"key": key, "json": as_json.decode() if is_sqlite else as_json})
        statement = rows.update().where(rows.c.id == sa.bindparam("key"))
        connection.execute(statement.values({column: sa.bindparam("json", type_=column.type)}), unpacked)
