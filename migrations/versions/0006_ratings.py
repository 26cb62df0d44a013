"""The user's ratings, with an index of the rated rows only."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

INDEX = "ix_generations_rated"


def upgrade() -> None:
    op.add_column("generations", sa.Column("rating", sa.SmallInteger))
    rated = sa.text("rating IS NOT NULL")
    op.create_index(INDEX, "generations", ["rating", "created_at"], sqlite_where=rated, postgresql_where=rated)


def downgrade() -> None:
    op.drop_index(INDEX, "generations")
    op.drop_column("generations", "rating")
