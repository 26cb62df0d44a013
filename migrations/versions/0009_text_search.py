"""An index of the text of prompts, by which any part of it is found; see storage_service/search/prompt_index.py."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.exc import DatabaseError

from dgx_music.errors import FailedPrecondition

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None
min_compatible = "0008"
"""The earliest revision whose servers can use this schema: triggers fill the index."""

TOKENIZER = "trigram case_sensitive 1"

PENDING_LIST_KB = 1024
"""How much of what was inserted each search in Postgres reads unsorted, at most."""

_FILLED_AT_ONCE = 5000


def prepare(connection: sa.Connection) -> None:
    """Does what takes long on Postgres, outside of any transaction, while servers read and write.

    It may be interrupted and repeated. Until the migration, nobody uses what it creates.
    """
    _create_on_postgres(connection, is_concurrent=True)


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        _create_on_sqlite()
    else:
        _create_on_postgres(connection, is_concurrent=False)


def downgrade() -> None:
    _drop(op.get_bind())


def _drop(connection: sa.Connection) -> None:
    statements = [
        "DROP INDEX IF EXISTS ix_generations_prompt",
        "DROP TABLE IF EXISTS prompt_search",
        "DROP FUNCTION IF EXISTS dgx_prompt_search_changed CASCADE",
        "DROP FUNCTION IF EXISTS dgx_prompt_search_truncated CASCADE",
        "DROP FUNCTION IF EXISTS dgx_trigrams",
    ]
    if connection.dialect.name == "sqlite":
        statements = [
            "DROP INDEX IF EXISTS ix_generations_prompt",
            "DROP TRIGGER IF EXISTS prompt_search_inserted",
            "DROP TABLE IF EXISTS prompt_search_terms",
            "DROP TABLE IF EXISTS prompt_search",
            "DROP VIEW IF EXISTS prompt_search_texts",
        ]
    for statement in statements:
        connection.exec_driver_sql(statement)


def _create_on_sqlite() -> None:
    _drop(op.get_bind())  # After a reset they are still there.
    # Two spaces at the end: every character then begins a trigram, so that shorter texts are found by their prefixes.
    op.execute("CREATE VIEW prompt_search_texts AS SELECT id, dgx_casefold(text) || '  ' AS text FROM prompts")
    try:
        op.execute(
            "CREATE VIRTUAL TABLE prompt_search USING fts5(text, content='prompt_search_texts', content_rowid='id', "
            f"tokenize='{TOKENIZER}', detail='none', columnsize=0)"
        )
    except DatabaseError as error:
        raise FailedPrecondition(
            f"this Python's SQLite has no index for text ({error.orig}); use a Python whose SQLite is 3.34 or later "
            "with FTS5, or set DGX_MUSIC_DATABASE_URL to a Postgres database",
            reason="SQLITE_WITHOUT_TEXT_INDEX",
        ) from error
    op.execute("CREATE VIRTUAL TABLE prompt_search_terms USING fts5vocab('prompt_search', 'instance')")
    op.execute("INSERT INTO prompt_search(prompt_search) VALUES ('rebuild')")
    # None for deletions: FTS5 would have to be told the text, and the id of a prompt is never used again.
    op.execute(
        "CREATE TRIGGER prompt_search_inserted AFTER INSERT ON prompts BEGIN "
        "INSERT INTO prompt_search(rowid, text) VALUES (NEW.id, dgx_casefold(NEW.text) || '  '); END"
    )
    op.create_index("ix_generations_prompt", "generations", ["prompt", "created_at"])


def _create_on_postgres(connection: sa.Connection, *, is_concurrent: bool) -> None:
    """Creates what is not there yet. The trigger, which the table has from its creation on, goes with `prompts`."""
    has_trigger = "SELECT 1 FROM pg_trigger WHERE tgname = 'prompt_search_changed' AND tgrelid = 'prompts'::regclass"
    if connection.exec_driver_sql(has_trigger).one_or_none() is None:
        _drop(connection)
        _create_postgres_table(connection)
    _fill_postgres_table(connection)
    for name, definition in (
        (
            "ix_prompt_search_trigrams",
            f"prompt_search USING gin (dgx_trigrams(text)) WITH (gin_pending_list_limit = {PENDING_LIST_KB})",
        ),
        ("ix_generations_prompt", "generations (hashtextextended(prompt, 0), created_at)"),
    ):
        is_invalid = f"SELECT 1 FROM pg_index WHERE indexrelid = to_regclass('{name}') AND NOT indisvalid"
        if connection.exec_driver_sql(is_invalid).one_or_none() is not None:  # It was interrupted.
            connection.exec_driver_sql(f"DROP INDEX {name}")
        concurrently = "CONCURRENTLY" if is_concurrent else ""
        connection.exec_driver_sql(f"CREATE INDEX {concurrently} IF NOT EXISTS {name} ON {definition}")
    # Or each ANALYZE would compute the trigrams of its sample, for statistics that a search does not need.
    connection.exec_driver_sql("ALTER INDEX ix_prompt_search_trigrams ALTER COLUMN 1 SET STATISTICS 0")


def _create_postgres_table(connection: sa.Connection) -> None:
    for statement in (
        # The rows of `prompts` change at each use, which would add a hundred entries to the index each time.
        """
        CREATE TABLE prompt_search (
            prompt_id BIGINT CONSTRAINT pk_prompt_search PRIMARY KEY,
            prompt_hash BIGINT NOT NULL,
            text TEXT NOT NULL
        )
        """,
        # PL/pgSQL is faster here than SQL. The cost keeps the planner from computing it for each row of the table.
        # Two spaces at the end: every character then begins a trigram, so that shorter texts are found by prefixes.
        """
        CREATE FUNCTION dgx_trigrams(folded TEXT) RETURNS TSVECTOR LANGUAGE plpgsql
        IMMUTABLE STRICT PARALLEL SAFE COST 10000 AS $$
        DECLARE
            trigrams TEXT[] = '{}';
            before_last TEXT = '';
            last TEXT = '';
            current TEXT;
        BEGIN
            FOREACH current IN ARRAY string_to_array(folded || '  ', NULL) LOOP
                trigrams = trigrams || (before_last || last || current);
                before_last = last;
                last = current;
            END LOOP;
            RETURN array_to_tsvector(trigrams);
        END $$
        """,
        """
        CREATE FUNCTION dgx_prompt_search_changed() RETURNS TRIGGER LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP <> 'INSERT' THEN
                DELETE FROM prompt_search WHERE prompt_id = OLD.id;
            END IF;
            IF TG_OP <> 'DELETE' THEN
                INSERT INTO prompt_search (prompt_id, prompt_hash, text)
                VALUES (NEW.id, hashtextextended(NEW.text, 0), lower(NEW.text));
            END IF;
            RETURN NULL;
        END $$
        """,
        """
        CREATE FUNCTION dgx_prompt_search_truncated() RETURNS TRIGGER LANGUAGE plpgsql AS $$
        BEGIN TRUNCATE prompt_search; RETURN NULL; END $$
        """,
        """
        CREATE TRIGGER prompt_search_truncated AFTER TRUNCATE ON prompts
        FOR EACH STATEMENT EXECUTE FUNCTION dgx_prompt_search_truncated()
        """,
        """
        CREATE TRIGGER prompt_search_changed AFTER INSERT OR DELETE OR UPDATE OF id, text ON prompts
        FOR EACH ROW EXECUTE FUNCTION dgx_prompt_search_changed()
        """,
    ):
        connection.exec_driver_sql(statement)


def _fill_postgres_table(connection: sa.Connection) -> None:
    statement = sa.text("""
        WITH batch AS (
            SELECT id, text FROM prompts
            WHERE id > :last AND NOT EXISTS (SELECT 1 FROM prompt_search WHERE prompt_id = id) ORDER BY id LIMIT :limit
        ),
        filled AS (
            INSERT INTO prompt_search (prompt_id, prompt_hash, text)
            SELECT id, hashtextextended(text, 0), lower(text) FROM batch ON CONFLICT DO NOTHING
        )
        SELECT max(id) FROM batch
    """)
    last: int | None = 0
    while last is not None:
        last = connection.scalar(statement, {"last": last, "limit": _FILLED_AT_ONCE})
