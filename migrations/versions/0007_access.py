"""Tokens, the client and the trace of each generation, and what each client uses."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("scope", sa.SmallInteger, nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary, nullable=False),
        sa.Column("calls_per_minute", sa.Integer, nullable=False),
        sa.Column("max_queued", sa.Integer, nullable=False),
        sa.Column("minutes_per_day", sa.Double, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
    )
    op.create_index("ix_tokens_created_at", "tokens", ["created_at"])
    op.create_index("ix_tokens_name", "tokens", ["name"])
    op.create_table(
        "client_usage",
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("audio_seconds", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("client", "day", name="pk_client_usage"),
    )
    op.add_column("generations", sa.Column("client", sa.Text, nullable=False, server_default=sa.text("''")))
    op.add_column("generations", sa.Column("trace_parent", sa.Text))
    op.execute("UPDATE generations SET ranked_at = NULL WHERE status = 'failed'")  # It is ranked anew at a retry.
    op.drop_index("ix_generations_queue", "generations")
    _create_partial_index("queue", "status = 'pending'", ["model_name", "ranked_at", "created_at"])
    _create_partial_index("queued", "ranked_at IS NOT NULL", ["client", "ranked_at", "priority"])
    _create_partial_index("clients", "client <> ''", ["client", "created_at"])


def downgrade() -> None:
    for index in ("clients", "queued", "queue"):
        op.drop_index(f"ix_generations_{index}", "generations")
    _create_partial_index("queue", "status = 'pending'", ["model_name", "ranked_at", "id"])
    op.execute("UPDATE generations SET ranked_at = created_at WHERE status = 'failed'")
    op.drop_column("generations", "trace_parent")
    op.drop_column("generations", "client")
    op.drop_table("client_usage")
    op.drop_table("tokens")


def _create_partial_index(name: str, condition: str, columns: list[str]) -> None:
    where = sa.text(condition)
    op.create_index(f"ix_generations_{name}", "generations", columns, sqlite_where=where, postgresql_where=where)
