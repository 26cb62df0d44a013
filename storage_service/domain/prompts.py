"""Distinct prompt texts and how often each was used."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from functools import cache

from sqlalchemy import CTE, Executable, Insert, Text, bindparam, literal, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from service_runtime.validation import check_prompt
from storage_service.db.clock import not_before, now
from storage_service.db.models import REFRESH_FROM_RETURNING, Prompt
from storage_service.db.upsert import dialect_name, insert_into


def text_sha256(text: str) -> str:
    """Returns the unique key of a prompt: the first 128 bits of the SHA-256 of its UTF-8 text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def count_use(session: Session, text: str) -> Prompt:
    """Counts one use of a prompt, and creates the prompt on its first use, in one statement."""
    check_prompt("prompt", text)
    statement = _upsert_returning_statement(dialect_name(session))
    prompt: Prompt = session.scalars(statement, _upsert_values(text), execution_options=REFRESH_FROM_RETURNING).one()
    return prompt


def count_uses(session: Session, texts: Iterable[str]) -> None:
    """Counts one use of each text. The texts are sorted so that transactions that share prompts can't deadlock."""
    statement, connection = _upsert_statement(dialect_name(session)), session.connection()
    for text, uses in sorted(Counter(texts).items()):
        connection.execute(statement, _upsert_values(text, uses))


def count_use_with(inserted: CTE) -> CTE:
    """Returns what counts one use of the parameters `prompt` and `text_sha256` in the statement that inserts a row.

    For Postgres, and one row: statements that count several prompts must do so in their order.
    """
    names = ["text", "text_sha256", "used_count", "first_used_at", "last_used_at"]
    values = select(
        bindparam("prompt", type_=Text), bindparam("text_sha256", type_=Text), literal(1), now(), now()
    ).select_from(inserted)
    return _on_conflict_count(
        insert_into("postgresql", Prompt).from_select(names, values, include_defaults=False)
    ).cte()


def _upsert_values(text: str, uses: int = 1) -> dict[str, object]:
    return {"text": text, "text_sha256": text_sha256(text), "used_count": uses}


# Cached because building a statement takes longer than running it.
@cache
def _upsert_statement(dialect: str) -> Insert:
    return _on_conflict_count(insert_into(dialect, Prompt))


def _on_conflict_count(statement: postgresql.Insert) -> postgresql.Insert:
    changes = {
        "used_count": Prompt.used_count + statement.excluded.used_count,
        "last_used_at": not_before(Prompt.last_used_at),
    }
    return statement.on_conflict_do_update(index_elements=[Prompt.text_sha256], set_=changes)


@cache
def _upsert_returning_statement(dialect: str) -> Executable:
    return select(Prompt).from_statement(_upsert_statement(dialect).returning(Prompt))


def find(session: Session, text: str) -> Prompt | None:
    """Returns the prompt with exactly this text, or None if it was never used."""
    return session.scalar(select(Prompt).where(Prompt.text_sha256 == text_sha256(text)))
