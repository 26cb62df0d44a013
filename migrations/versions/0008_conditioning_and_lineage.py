"""Conditions, edits and loops, and what each generation was made from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    uuid = sa.Text() if is_sqlite else sa.Uuid()
    op.add_column("generations", sa.Column("conditioning", sa.JSON))
    op.add_column("generations", sa.Column("edit", sa.JSON))
    op.add_column("generations", sa.Column("loop", sa.JSON))
    op.add_column("generations", sa.Column("variation_of", uuid))
    op.create_table(
        "parents",
        sa.Column("child_id", uuid, nullable=False),
        sa.Column("parent_id", uuid, nullable=False),
        sa.Column("relation", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("child_id", "parent_id", "relation", name="pk_parents"),
        sa.ForeignKeyConstraint(["child_id"], ["generations.id"], name="fk_parents_child_id", ondelete="CASCADE"),
    )
    source_id = "json_extract(continuation, '$.source_id')" if is_sqlite else "(continuation->>'source_id')::uuid"
    op.execute(
        "INSERT INTO parents (child_id, parent_id, relation) "
        f"SELECT id, {source_id}, 'continuation' FROM generations WHERE continuation IS NOT NULL"
    )
    op.create_index("ix_parents_parent_id", "parents", ["parent_id"])


def downgrade() -> None:
    op.drop_table("parents")
    for column in ("variation_of", "loop", "edit", "conditioning"):
        op.drop_column("generations", column)
