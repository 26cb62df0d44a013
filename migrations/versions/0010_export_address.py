"""The export server that records a generation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("generations", sa.Column("export_address", sa.Text))


def downgrade() -> None:
    op.drop_column("generations", "export_address")
