"""Distinct prompt texts and how often each was used."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from functools import cache

from sqlalchemy import Executable, Insert, select
from sqlalchemy.orm import Session

from service_runtime.validation import check_prompt
from storage_service.db.clock import now
from storage_service.db.models import RETURNED_ROW_WINS, Prompt
from storage_service.db.upsert import dialect_of, insert_into


def text_sha256(text: str) -> str:
    """What a prompt's uniqueness hangs on: the first 128 bits of SHA-256 of its UTF-8, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def count_use(session: Session, text: str) -> Prompt:
    """Counts a use of a prompt, the first or one more, in one statement."""
    check_prompt("prompt", text)
    counting = _counting_and_telling(dialect_of(session))
    prompt: Prompt = session.scalars(counting, _use(text), execution_options=RETURNED_ROW_WINS).one()
    return prompt


def count_uses(session: Session, texts: Iterable[str]) -> None:
    """Counts one use for each text. In one order for all transactions: those that share prompts would deadlock else."""
    counting, connection = _counting(dialect_of(session)), session.connection()
    for text, uses in sorted(Counter(texts).items()):
        connection.execute(counting, _use(text, uses))


def _use(text: str, uses: int = 1) -> dict[str, object]:
    return {"text": text, "text_sha256": text_sha256(text), "used_count": uses}


# Built once: building a statement takes longer than running it.
@cache
def _counting(dialect: str) -> Insert:
    statement = insert_into(dialect, Prompt)
    more = {"used_count": Prompt.used_count + statement.excluded.used_count, "last_used_at": now()}
    return statement.on_conflict_do_update(index_elements=[Prompt.text_sha256], set_=more)


@cache
def _counting_and_telling(dialect: str) -> Executable:
    return select(Prompt).from_statement(_counting(dialect).returning(Prompt))


def find(session: Session, text: str) -> Prompt | None:
    """The prompt of exactly this text."""
    return session.scalar(select(Prompt).where(Prompt.text_sha256 == text_sha256(text)))
