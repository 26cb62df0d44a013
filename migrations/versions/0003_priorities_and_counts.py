"""Priorities, smaller indexes, and the counts that statistics are read from.

Triggers maintain the counts; see storage_service/db/counts.py.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SHARD_LOCK = 0x6467_7863  # "dgxc": the first key of the advisory locks on shards
NOT_FINISHED = "1970-01-01"

COUNTS = "status, model_name, finished_on, shard, generations, audio_ms, file_bytes, work_ms"
ADD_COUNTS = """
    ON CONFLICT (status, model_name, finished_on, shard) DO UPDATE SET
        generations = generation_counts.generations + excluded.generations,
        audio_ms = generation_counts.audio_ms + excluded.audio_ms,
        file_bytes = generation_counts.file_bytes + excluded.file_bytes,
        work_ms = generation_counts.work_ms + excluded.work_ms
"""
TIMES = "model_name, seconds, shard, generations"
ADD_TIMES = """
    ON CONFLICT (model_name, seconds, shard) DO UPDATE SET
        generations = generation_times.generations + excluded.generations
"""
ADD_PROMPTS = "ON CONFLICT (shard) DO UPDATE SET prompts = prompt_counts.prompts + excluded.prompts"

SQLITE_CELL = f"""
    {{sign}} AS sign, {{row}}.status AS status, {{row}}.model_name AS model_name,
    coalesce(substr({{row}}.completed_at, 1, 10), '{NOT_FINISHED}') AS finished_on,
    CAST(round({{row}}.duration_seconds * 1000) AS INTEGER) AS audio_ms,
    coalesce({{row}}.file_size_bytes, 0) AS file_bytes,
    CAST(round(coalesce({{row}}.generation_time_seconds, 0) * 1000) AS INTEGER) AS work_ms,
    CAST(printf('%.1e', {{row}}.generation_time_seconds) AS REAL) AS seconds,
    {{row}}.generation_time_seconds IS NOT NULL AS is_timed
"""
POSTGRES_CELL = f"""
    {{sign}} AS sign, status, model_name,
    coalesce(CAST(completed_at AT TIME ZONE 'UTC' AS DATE), DATE '{NOT_FINISHED}') AS finished_on,
    CAST(round(CAST(duration_seconds * 1000 AS NUMERIC)) AS BIGINT) AS audio_ms,
    coalesce(file_size_bytes, 0) AS file_bytes,
    CAST(round(CAST(coalesce(generation_time_seconds, 0) * 1000 AS NUMERIC)) AS BIGINT) AS work_ms,
    CAST(to_char(generation_time_seconds, '9.9EEEE') AS DOUBLE PRECISION) AS seconds,
    generation_time_seconds IS NOT NULL AS is_timed
"""
COUNTED = "status, model_name, completed_at, duration_seconds, file_size_bytes, generation_time_seconds"


SHORTENED_INDEXES = (
    ("generations", ["created_at"]),
    ("generations", ["status", "created_at"]),
    ("generations", ["model_name", "created_at"]),
    ("prompts", ["last_used_at"]),
)
"""Indexes that no longer include the id."""


def upgrade() -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    # On Postgres the table can't be read from the first step that alters it on, so the slow steps come first.
    for table, columns in SHORTENED_INDEXES:
        op.create_index(f"ix_{table}_{'_'.join(columns)}", table, columns)
    _create_partial_index("leases", "status = 'processing'", ["status", "lease_expires_at"])
    op.execute("UPDATE generations SET not_before = NULL WHERE status <> 'pending' AND not_before IS NOT NULL")
    _create_partial_index("waiting", "not_before IS NOT NULL", ["not_before"])
    op.execute("UPDATE prompts SET text_sha256 = substr(text_sha256, 1, 32)")
    _create_counts()
    _fill_counts(SQLITE_CELL.format(sign=1, row="generations") if is_sqlite else POSTGRES_CELL.format(sign=1))

    for table, columns in SHORTENED_INDEXES:
        op.drop_index(f"ix_{table}_{'_'.join(columns)}_id", table)
    op.drop_index("ix_generations_completed_at", "generations")
    op.add_column("generations", sa.Column("priority", sa.SmallInteger, nullable=False, server_default=sa.text("0")))
    op.add_column("generations", sa.Column("ranked_at", sa.DateTime(timezone=True)))
    op.execute(
        "UPDATE generations SET ranked_at = created_at WHERE status IN ('pending', 'processing', 'failed')"
    )  # Rows that may still be claimed.
    _create_partial_index("queue", "status = 'pending'", ["model_name", "ranked_at", "id"])
    if is_sqlite:
        _create_sqlite_triggers()
    else:
        _create_postgres_triggers()


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for trigger in ("generations_inserted", "generations_deleted", "generations_updated"):
            op.execute(f"DROP TRIGGER {trigger}")
        for trigger in ("prompts_inserted", "prompts_deleted"):
            op.execute(f"DROP TRIGGER {trigger}")
    else:
        # CASCADE drops their triggers, too.
        for function in ("generations_inserted", "generations_deleted", "generations_updated"):
            op.execute(f"DROP FUNCTION dgx_{function} CASCADE")
        for function in ("prompts_inserted", "prompts_deleted", "generations_truncated", "prompts_truncated"):
            op.execute(f"DROP FUNCTION dgx_{function} CASCADE")
        op.execute("DROP FUNCTION dgx_free_shard")
    for table in ("generation_counts", "generation_times", "prompt_counts"):
        op.drop_table(table)
    for index in ("queue", "waiting", "leases"):
        op.drop_index(f"ix_generations_{index}", "generations")
    for table, columns in SHORTENED_INDEXES:
        name = f"ix_{table}_{'_'.join(columns)}"
        op.drop_index(name, table)
        op.create_index(f"{name}_id", table, [*columns, "id"])
    op.create_index("ix_generations_completed_at", "generations", ["completed_at"])
    _restore_full_hashes()
    op.drop_column("generations", "ranked_at")
    op.drop_column("generations", "priority")


def _restore_full_hashes() -> None:
    import hashlib

    prompts = sa.table("prompts", sa.column("id"), sa.column("text"), sa.column("text_sha256"))
    connection = op.get_bind()
    rows = connection.execute(sa.select(prompts.c.id, prompts.c.text)).all()
    set_hash = prompts.update().where(prompts.c.id == sa.bindparam("key")).values(text_sha256=sa.bindparam("hash"))
    hashes = [{"key": key, "hash": hashlib.sha256(text.encode()).hexdigest()} for key, text in rows]
    if hashes:
        connection.execute(set_hash, hashes)


def _create_partial_index(name: str, condition: str, columns: list[str]) -> None:
    where = sa.text(condition)
    op.create_index(f"ix_generations_{name}", "generations", columns, sqlite_where=where, postgresql_where=where)


def _create_counts() -> None:
    op.create_table(
        "generation_counts",
        sa.Column("status", sa.Text, primary_key=True),
        sa.Column("model_name", sa.Text, primary_key=True),
        sa.Column("finished_on", sa.Date, primary_key=True),
        sa.Column("shard", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("generations", sa.BigInteger, nullable=False),
        sa.Column("audio_ms", sa.BigInteger, nullable=False),
        sa.Column("file_bytes", sa.BigInteger, nullable=False),
        sa.Column("work_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "generation_times",
        sa.Column("model_name", sa.Text, primary_key=True),
        sa.Column("seconds", sa.Double, primary_key=True, autoincrement=False),
        sa.Column("shard", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("generations", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "prompt_counts",
        sa.Column("shard", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("prompts", sa.BigInteger, nullable=False),
    )


def _build_add_statements(cells: str, shard: str = "0") -> str:
    """Returns the statements that add `cells`, the body of a SELECT, to the counts."""
    return f"""
        INSERT INTO generation_counts ({COUNTS})
        SELECT status, model_name, finished_on, {shard}, sum(sign), sum(sign * audio_ms), sum(sign * file_bytes),
            sum(sign * work_ms)
        FROM ({cells}) AS cell GROUP BY status, model_name, finished_on
        HAVING sum(sign) <> 0 OR sum(sign * audio_ms) <> 0 OR sum(sign * file_bytes) <> 0 OR sum(sign * work_ms) <> 0
        {ADD_COUNTS};
        INSERT INTO generation_times ({TIMES})
        SELECT model_name, seconds, {shard}, sum(sign) FROM ({cells}) AS cell
        WHERE status = 'completed' AND is_timed GROUP BY model_name, seconds HAVING sum(sign) <> 0
        {ADD_TIMES};
    """


def _fill_counts(cell: str) -> None:
    for statement in _build_add_statements(f"SELECT {cell} FROM generations").split(";"):
        if statement.strip():
            op.execute(statement)
    op.execute("INSERT INTO prompt_counts (shard, prompts) SELECT 0, count(*) FROM prompts")


def _create_sqlite_triggers() -> None:
    gained = f"SELECT {SQLITE_CELL.format(sign=1, row='NEW')}"
    lost = f"SELECT {SQLITE_CELL.format(sign=-1, row='OLD')}"
    for name, event, cells in (
        ("inserted", "INSERT", gained),
        ("deleted", "DELETE", lost),
        ("updated", f"UPDATE OF {COUNTED}", f"{lost} UNION ALL {gained}"),
    ):
        op.execute(
            f"CREATE TRIGGER generations_{name} AFTER {event} ON generations BEGIN {_build_add_statements(cells)} END"
        )
    for name, event, sign in (("inserted", "INSERT", 1), ("deleted", "DELETE", -1)):
        op.execute(
            f"CREATE TRIGGER prompts_{name} AFTER {event} ON prompts BEGIN "
            f"INSERT INTO prompt_counts (shard, prompts) VALUES (0, {sign}) {ADD_PROMPTS}; END"
        )


def _create_postgres_triggers() -> None:
    op.execute(f"""
        CREATE OR REPLACE FUNCTION dgx_free_shard() RETURNS INTEGER LANGUAGE plpgsql AS $$
        DECLARE shard INTEGER = 0;
        BEGIN
            WHILE NOT pg_try_advisory_xact_lock({SHARD_LOCK}, shard) LOOP
                shard = shard + 1;
            END LOOP;
            RETURN shard;
        END $$
    """)
    gained = f"SELECT {POSTGRES_CELL.format(sign=1)} FROM gained"
    lost = f"SELECT {POSTGRES_CELL.format(sign=-1)} FROM lost"
    for name, event, tables, cells in (
        ("inserted", "INSERT", "NEW TABLE AS gained", gained),
        ("deleted", "DELETE", "OLD TABLE AS lost", lost),
        ("updated", "UPDATE", "OLD TABLE AS lost NEW TABLE AS gained", f"{lost} UNION ALL {gained}"),
    ):
        _create_trigger(
            f"generations_{name}", "generations", f"{event}", tables, _build_add_statements(cells, "free_shard")
        )
    for name, event, sign in (("inserted", "INSERT", 1), ("deleted", "DELETE", -1)):
        changed = "NEW" if sign > 0 else "OLD"
        body = f"""
            INSERT INTO prompt_counts (shard, prompts) SELECT free_shard, {sign} * count(*) FROM changed
            HAVING count(*) > 0 {ADD_PROMPTS};
        """
        _create_trigger(f"prompts_{name}", "prompts", event, f"{changed} TABLE AS changed", body)
    for table, body in (
        ("generations", "DELETE FROM generation_counts; DELETE FROM generation_times;"),
        ("prompts", "DELETE FROM prompt_counts;"),
    ):
        _create_trigger(f"{table}_truncated", table, "TRUNCATE", "", body)


def _create_trigger(name: str, table: str, event: str, tables: str, body: str) -> None:
    """Creates a trigger that runs once per statement, no matter how many rows it changes."""
    declared = "DECLARE free_shard INTEGER = dgx_free_shard();" if "free_shard" in body else ""
    op.execute(f"""
        CREATE OR REPLACE FUNCTION dgx_{name}() RETURNS TRIGGER LANGUAGE plpgsql AS $$
        {declared}
        BEGIN {body} RETURN NULL; END $$
    """)
    referencing = f"REFERENCING {tables}" if tables else ""
    op.execute(
        f"CREATE TRIGGER {name} AFTER {event} ON {table} {referencing} FOR EACH STATEMENT EXECUTE FUNCTION dgx_{name}()"
    )
