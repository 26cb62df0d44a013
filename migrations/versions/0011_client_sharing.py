"""Weights of clients, and generations that were handed back before they were complete."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    op.add_column("tokens", sa.Column("weight", sa.Double, nullable=False, server_default=sa.text("1")))
    op.add_column("generations", sa.Column("weight", sa.Double))
    op.create_table(
        "checkpoints",
        sa.Column("generation_id", sa.Text() if is_sqlite else sa.Uuid(), nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("saved_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("generation_id", name="pk_checkpoints"),
        sa.ForeignKeyConstraint(
            ["generation_id"], ["generations.id"], name="fk_checkpoints_generation_id", ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    op.drop_table("checkpoints")
    op.drop_column("generations", "weight")
    op.drop_column("tokens", "weight")
