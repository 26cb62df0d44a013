"""Weights of clients, generations that were handed back before the end, and renewals that change no index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_LEASES = "ix_generations_leases"


def upgrade() -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    op.add_column("tokens", sa.Column("weight", sa.Double, nullable=False, server_default=sa.text("1")))
    op.add_column("generations", sa.Column("weight", sa.Double))
    op.drop_index(_LEASES, "generations")
    op.add_column("generations", sa.Column("lease_check_at", sa.DateTime(timezone=True)))
    op.execute("UPDATE generations SET lease_check_at = lease_expires_at WHERE status = 'processing'")
    _index_leases("lease_check_at")
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
    op.drop_index(_LEASES, "generations")
    op.drop_column("generations", "lease_check_at")
    _index_leases("lease_expires_at")
    op.drop_column("generations", "weight")
    op.drop_column("tokens", "weight")


def _index_leases(column: str) -> None:
    where = sa.text("status = 'processing'")
    op.create_index(_LEASES, "generations", ["status", column], sqlite_where=where, postgresql_where=where)
