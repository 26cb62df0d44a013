"""An index of the text of prompts, by which any part of it is found; see storage_service/search/prompt_index.py."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

PENDING_LIST_KB = 1024
"""How much of what was inserted each search in Postgres reads unsorted, at most."""


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _create_on_sqlite()
    else:
        _create_on_postgres()


def downgrade() -> None:
    _drop()


def _drop() -> None:
    op.execute("DROP INDEX IF EXISTS ix_generations_prompt")
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER IF EXISTS prompt_search_inserted")
        for table in ("prompt_search_terms", "prompt_search"):
            op.execute(f"DROP TABLE IF EXISTS {table}")
        op.execute("DROP VIEW IF EXISTS prompt_search_texts")
        return
    op.execute("DROP TABLE IF EXISTS prompt_search")
    for function in ("prompt_search_changed", "prompt_search_truncated"):
        op.execute(f"DROP FUNCTION IF EXISTS dgx_{function} CASCADE")
    op.execute("DROP FUNCTION IF EXISTS dgx_trigrams")


def _create_on_sqlite() -> None:
    _drop()  # A database whose tables were replaced by a backup may still have them.
    # Two spaces at the end: every character then begins a trigram, so that shorter texts are found by their prefixes.
    op.execute("CREATE VIEW prompt_search_texts AS SELECT id, dgx_casefold(text) || '  ' AS text FROM prompts")
    op.execute(
        "CREATE VIRTUAL TABLE prompt_search USING fts5(text, content='prompt_search_texts', content_rowid='id', "
        "tokenize='trigram case_sensitive 1', detail='none', columnsize=0)"
    )
    op.execute("CREATE VIRTUAL TABLE prompt_search_terms USING fts5vocab('prompt_search', 'instance')")
    op.execute("INSERT INTO prompt_search(prompt_search) VALUES ('rebuild')")
    op.execute(
        "CREATE TRIGGER prompt_search_inserted AFTER INSERT ON prompts BEGIN "
        "INSERT INTO prompt_search(rowid, text) VALUES (NEW.id, dgx_casefold(NEW.text) || '  '); END"
    )
    op.create_index("ix_generations_prompt", "generations", ["prompt", "created_at"])


def _create_on_postgres() -> None:
    _drop()
    # The rows of `prompts` change at each use, which would add a hundred entries to the index each time.
    op.create_table(
        "prompt_search",
        sa.Column("prompt_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("prompt_hash", sa.BigInteger, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    # PL/pgSQL is faster here than SQL. The cost keeps the planner from computing it for each row of the table.
    op.execute("""
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
    """)
    op.execute("""
        INSERT INTO prompt_search (prompt_id, prompt_hash, text)
        SELECT id, hashtextextended(text, 0), lower(text) FROM prompts
    """)
    op.execute(
        "CREATE INDEX ix_prompt_search_trigrams ON prompt_search USING gin (dgx_trigrams(text)) "
        f"WITH (gin_pending_list_limit = {PENDING_LIST_KB})"
    )
    # Or each ANALYZE would compute the trigrams of its sample, for statistics that a search does not need.
    op.execute("ALTER INDEX ix_prompt_search_trigrams ALTER COLUMN 1 SET STATISTICS 0")
    op.execute("""
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
    """)
    op.execute("""
        CREATE TRIGGER prompt_search_changed AFTER INSERT OR DELETE OR UPDATE OF id, text ON prompts
        FOR EACH ROW EXECUTE FUNCTION dgx_prompt_search_changed()
    """)
    op.execute("""
        CREATE FUNCTION dgx_prompt_search_truncated() RETURNS TRIGGER LANGUAGE plpgsql AS $$
        BEGIN TRUNCATE prompt_search; RETURN NULL; END $$
    """)
    op.execute("""
        CREATE TRIGGER prompt_search_truncated AFTER TRUNCATE ON prompts
        FOR EACH STATEMENT EXECUTE FUNCTION dgx_prompt_search_truncated()
    """)
    op.execute("CREATE INDEX ix_generations_prompt ON generations (hashtextextended(prompt, 0), created_at)")
    op.execute("ANALYZE generations, prompt_search")
