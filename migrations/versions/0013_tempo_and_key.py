"""Tempo and key of generations as columns, for the filters of lists.

A server of the revision before leaves them empty in the rows that it writes: those are not found by tempo or key.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None
min_compatible = "0011"

INDEX = "ix_generations_bpm"
BATCH_ROWS = 2000


def upgrade() -> None:
    op.add_column("generations", sa.Column("bpm", sa.Double))
    op.add_column("generations", sa.Column("music_key", sa.Text))
    _fill()
    where = sa.text("bpm IS NOT NULL OR music_key IS NOT NULL")
    op.create_index(
        INDEX, "generations", ["created_at", "bpm", "music_key"], sqlite_where=where, postgresql_where=where
    )


def downgrade() -> None:
    op.drop_index(INDEX, "generations")
    op.drop_column("generations", "music_key")
    op.drop_column("generations", "bpm")


def _fill() -> None:
    from storage_service.db.types import PackedJsonObject
    from storage_service.search.musical_properties import musical_columns

    connection = op.get_bind()
    is_sqlite = connection.dialect.name == "sqlite"
    rows = sa.table(
        "generations",
        sa.column("id", sa.Text() if is_sqlite else sa.Uuid()),
        sa.column("metadata"),
        sa.column("bpm", sa.Double),
        sa.column("music_key", sa.Text),
    )
    batch = sa.select(rows.c.id, rows.c.metadata).order_by(rows.c.id).limit(BATCH_ROWS)
    update = rows.update().where(rows.c.id == sa.bindparam("of_id"))
    update = update.values(bpm=sa.bindparam("its_bpm"), music_key=sa.bindparam("its_key"))
    found = connection.execute(batch).all()
    while found:
        known: list[dict[str, Any]] = []
        for id, stored in found:
            metadata = PackedJsonObject(stored if isinstance(stored, str) else bytes(stored))
            columns = musical_columns(metadata) if metadata.is_object else {}
            if any(value is not None for value in columns.values()):
                known.append({"of_id": id, "its_bpm": columns["bpm"], "its_key": columns["music_key"]})
        if known:
            connection.execute(update, known)
        found = connection.execute(batch.where(rows.c.id > found[-1].id)).all()
