"""Comparisons: how a listener ranked generations.

A trigger deletes a comparison of which fewer than two generations are left, so that the deletions of servers of the
revision before do so, too.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None
min_compatible = "0011"

LOCK_FUNCTION, DELETE_FUNCTION = "dgx_lock_comparisons", "dgx_comparison_entries_deleted"


def upgrade() -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    uuid = sa.Text() if is_sqlite else sa.Uuid()
    op.create_table(
        "comparisons",
        sa.Column("id", uuid, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("blind", sa.Boolean, nullable=False),
        sa.Column("request_id", uuid),
        sa.Column("request_fingerprint", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_comparisons"),
        sa.UniqueConstraint("request_id", name="uq_comparisons_request_id"),
    )
    op.create_index("ix_comparisons_created_at", "comparisons", ["created_at"])
    op.create_table(
        "comparison_entries",
        sa.Column("comparison_id", uuid, nullable=False),
        sa.Column("generation_id", uuid, nullable=False),
        sa.Column("place", sa.SmallInteger, nullable=False),
        sa.PrimaryKeyConstraint("comparison_id", "generation_id", name="pk_comparison_entries"),
        sa.ForeignKeyConstraint(
            ["comparison_id"], ["comparisons.id"], name="fk_comparison_entries_comparison_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["generation_id"], ["generations.id"], name="fk_comparison_entries_generation_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_comparison_entries_generation_id", "comparison_entries", ["generation_id"])
    if is_sqlite:
        _create_sqlite_trigger()
    else:
        _create_postgres_triggers()


def downgrade() -> None:
    op.drop_table("comparison_entries")
    op.drop_table("comparisons")
    if op.get_bind().dialect.name != "sqlite":
        op.execute(f"DROP FUNCTION {DELETE_FUNCTION}")
        op.execute(f"DROP FUNCTION {LOCK_FUNCTION} CASCADE")  # With its trigger.


def _create_sqlite_trigger() -> None:
    op.execute("""
        CREATE TRIGGER comparison_entries_deleted AFTER DELETE ON comparison_entries BEGIN
            DELETE FROM comparisons WHERE id = OLD.comparison_id
            AND (SELECT count(*) FROM comparison_entries WHERE comparison_id = OLD.comparison_id) < 2;
        END
    """)


def _create_postgres_triggers() -> None:
    # Two transactions that delete one generation each do not see each other's, so that each would count the other's as
    # left. They lock the comparison before its entries: in the other order, they would deadlock.
    op.execute(f"""
        CREATE OR REPLACE FUNCTION {LOCK_FUNCTION}() RETURNS TRIGGER LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM 1 FROM comparisons
            WHERE id IN (SELECT comparison_id FROM comparison_entries WHERE generation_id = OLD.id)
            ORDER BY id FOR UPDATE;
            RETURN OLD;
        END $$
    """)
    op.execute(f"""
        CREATE TRIGGER generations_comparisons BEFORE DELETE ON generations
        FOR EACH ROW EXECUTE FUNCTION {LOCK_FUNCTION}()
    """)
    op.execute(f"""
        CREATE OR REPLACE FUNCTION {DELETE_FUNCTION}() RETURNS TRIGGER LANGUAGE plpgsql AS $$
        BEGIN
            DELETE FROM comparisons WHERE id IN (SELECT comparison_id FROM lost)
            AND (SELECT count(*) FROM comparison_entries WHERE comparison_id = comparisons.id) < 2;
            RETURN NULL;
        END $$
    """)
    op.execute(f"""
        CREATE TRIGGER comparison_entries_deleted AFTER DELETE ON comparison_entries
        REFERENCING OLD TABLE AS lost FOR EACH STATEMENT EXECUTE FUNCTION {DELETE_FUNCTION}()
    """)
