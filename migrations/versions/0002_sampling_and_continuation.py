"""Sampling parameters and the source that a generation continues."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("generations", sa.Column("sampling", sa.JSON))
    op.add_column("generations", sa.Column("continuation", sa.JSON))


def downgrade() -> None:
    op.drop_column("generations", "continuation")
    op.drop_column("generations", "sampling")
