"""Compares the index of text in prompts with the prompts, and builds it anew."""

from __future__ import annotations

from sqlalchemy import text

from storage_service.db.database import Database
from storage_service.db.error_translation import DamagedDatabase

_POSTGRES_INDEXES = "ix_prompt_search_trigrams", "ix_generations_prompt"

_DIFFERENCES = (
    "FROM prompts FULL JOIN prompt_search ON prompt_id = id WHERE id IS NULL OR prompt_id IS NULL "
    "OR prompt_hash <> hashtextextended(prompts.text, 0) OR prompt_search.text <> lower(prompts.text)"
)
_COUNT_DIFFERENCES = f"SELECT count(*) {_DIFFERENCES}"
_SELECT_DIFFERENCES = f"SELECT coalesce(id, prompt_id) {_DIFFERENCES}"
_DELETE_DIFFERENCES = f"DELETE FROM prompt_search WHERE prompt_id IN ({_SELECT_DIFFERENCES})"  # noqa: S608
_INSERT_MISSING = """
    INSERT INTO prompt_search (prompt_id, prompt_hash, text)
    SELECT id, hashtextextended(text, 0), lower(text) FROM prompts
    WHERE NOT EXISTS (SELECT 1 FROM prompt_search WHERE prompt_id = id) ON CONFLICT DO NOTHING
"""
_IS_USABLE = "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(:name) AND indisvalid"


def find_index_problems(database: Database) -> list[str]:
    """Returns what is wrong with the index: text that it has and no prompt, or the other way round."""
    if database.is_sqlite:
        try:
            with database.write() as session:
                session.execute(text("INSERT INTO prompt_search(prompt_search, rank) VALUES ('integrity-check', 1)"))
        except DamagedDatabase:
            return ["differs from the prompts"]
        return []
    with database.read() as session:
        differing = session.scalar(text(_COUNT_DIFFERENCES))
        missing = [name for name in _POSTGRES_INDEXES if session.scalar(text(_IS_USABLE), {"name": name}) is None]
    problems = [f"differs from the prompts in {differing} entries"] if differing else []
    return problems + [f"lacks {name}" for name in missing]


def rebuild_index(database: Database) -> None:
    """Builds the index anew. On Postgres, servers may read and write meanwhile."""
    if database.is_sqlite:
        with database.write() as session:
            session.execute(text("INSERT INTO prompt_search(prompt_search) VALUES ('rebuild')"))
            session.execute(text("REINDEX ix_generations_prompt"))
        return
    with database.write() as session:
        session.execute(text(_DELETE_DIFFERENCES))
        session.execute(text(_INSERT_MISSING))
    with database.outside_transactions() as connection:
        for name in _POSTGRES_INDEXES:
            connection.execute(text(f"REINDEX INDEX CONCURRENTLY {name}"))
