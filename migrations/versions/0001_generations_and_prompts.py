"""Generations and prompts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "generations",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("model_name", sa.Text, nullable=False),
        sa.Column("model_version", sa.Text),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("duration_seconds", sa.Double, nullable=False),
        sa.Column("sample_rate", sa.Integer, nullable=False),
        sa.Column("channels", sa.Integer, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("file_encoding", sa.Text, nullable=False),
        sa.Column("file_path", sa.Text),
        sa.Column("file_size_bytes", sa.BigInteger),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("completed_at", sa.DateTime(timezone=True)),
        sa.Column("generation_time_seconds", sa.Double),
        sa.Column("error_message", sa.Text),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("request_id", sa.Text),
        sa.Column("request_fingerprint", sa.Text),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("max_attempts", sa.Integer, nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True)),
        sa.Column("lease_token", sa.Text),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True)),
        sa.Column("worker_id", sa.Text),
        sa.Column("stage", sa.Text),
        sa.Column("progress", sa.Double, nullable=False),
        sa.CheckConstraint("status IN ('pending', 'processing', 'completed', 'failed', 'cancelled')", name="status"),
        sa.UniqueConstraint("request_id"),
    )
    op.create_index("ix_generations_created_at_id", "generations", ["created_at", "id"])
    op.create_index("ix_generations_status_created_at_id", "generations", ["status", "created_at", "id"])
    op.create_index("ix_generations_model_name_created_at_id", "generations", ["model_name", "created_at", "id"])
    op.create_index("ix_generations_completed_at", "generations", ["completed_at"])
    op.create_table(
        "prompts",
        # On SQLite only an INTEGER key, which has 64 bits there, is generated automatically.
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("text_sha256", sa.Text, nullable=False),
        sa.Column("used_count", sa.BigInteger, nullable=False),
        sa.Column("first_used_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("text_sha256"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_prompts_used_count_id", "prompts", ["used_count", "id"])
    op.create_index("ix_prompts_last_used_at_id", "prompts", ["last_used_at", "id"])


def downgrade() -> None:
    op.drop_table("prompts")
    op.drop_table("generations")
