"""Pages of generations and prompts, by keyset: a page begins after the last row of the one before, however many rows
came or went meanwhile.

A page token is opaque to callers. It holds the position and a hash of the filters, so that it serves no others.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select, tuple_, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session

from dgx_music.errors import InvalidArgument
from dgx_music.limits import MAX_PROMPT_CHARACTERS
from service_runtime.rpc.paging import Page
from service_runtime.validation import check_text, check_uuid
from storage_service.db.models import Generation, Prompt
from storage_service.domain.request_validation import check_name
from storage_service.states import GenerationStatus


class PromptOrder(StrEnum):
    """Which prompts come first."""

    MOST_USED = "most_used"
    MOST_RECENT = "most_recent"


@dataclass(frozen=True)
class GenerationFilter:
    """All that is given must hold."""

    statuses: Sequence[GenerationStatus] = ()
    model_name: str = ""
    prompt_contains: str = ""
    created_after: datetime | None = None
    created_before: datetime | None = None


def list_generations(session: Session, chosen: GenerationFilter, page: Page) -> tuple[list[Generation], str]:
    """Generations, newest first, and the token of the next page, empty on the last."""
    where: list[ColumnElement[bool]] = []
    if chosen.model_name:
        check_name("model_name", chosen.model_name)
        where.append(Generation.model_name == chosen.model_name)
    if chosen.prompt_contains:
        check_text("prompt_contains", chosen.prompt_contains, MAX_PROMPT_CHARACTERS)
        where.append(_contains(session, Generation.prompt, chosen.prompt_contains))
    if chosen.created_after is not None:
        where.append(Generation.created_at >= chosen.created_after)
    if chosen.created_before is not None:
        where.append(Generation.created_at < chosen.created_before)
    bound_to = _hash("generations", sorted(chosen.statuses), *(str(value) for value in list(vars(chosen).values())[1:]))
    if page.token:
        created_at, last_id = _position(page.token, bound_to, _read_moment, _read_id)
        where.append(tuple_(Generation.created_at, Generation.id) < (created_at, last_id))
    rows = list(session.scalars(_newest(set(chosen.statuses), where, page.limit + 1)))
    return _cut(rows, page.limit, bound_to, lambda row: [row.created_at.isoformat(), row.id])


def _newest(statuses: set[GenerationStatus], where: Sequence[ColumnElement[bool]], limit: int) -> Select[Generation]:
    """The newest generations of the states, or of all where none is named.

    Each state has its own run in the index; of several, the newest of each are found first and then those of all.
    """
    newest_first = Generation.created_at.desc(), Generation.id.desc()
    if len(statuses) in (0, len(GenerationStatus)):
        found = select(Generation).where(*where)
    elif len(statuses) == 1:
        found = select(Generation).where(Generation.status == next(iter(statuses)), *where)
    else:
        runs = [
            select(Generation.id).where(Generation.status == status, *where).order_by(*newest_first).limit(limit)
            for status in sorted(statuses)
        ]
        ids = union_all(*(select(run.subquery().c.id) for run in runs))
        found = select(Generation).where(Generation.id.in_(ids))
    return found.order_by(*newest_first).limit(limit)


def list_prompts(session: Session, order: PromptOrder, text_contains: str, page: Page) -> tuple[list[Prompt], str]:
    """Prompts in the order asked for, and the token of the next page, empty on the last."""
    where: list[ColumnElement[bool]] = []
    if text_contains:
        check_text("text_contains", text_contains, MAX_PROMPT_CHARACTERS)
        where.append(_contains(session, Prompt.text, text_contains))
    bound_to = _hash("prompts", order, text_contains)
    by_use = order is PromptOrder.MOST_USED
    key: InstrumentedAttribute[Any] = Prompt.used_count if by_use else Prompt.last_used_at
    if page.token:
        read_key = _read_number if by_use else _read_moment
        where.append(tuple_(key, Prompt.id) < _position(page.token, bound_to, read_key, _read_number))
    ordered = select(Prompt).where(*where).order_by(key.desc(), Prompt.id.desc())
    rows = list(session.scalars(ordered.limit(page.limit + 1)))
    return _cut(
        rows, page.limit, bound_to, lambda row: [row.used_count if by_use else row.last_used_at.isoformat(), row.id]
    )


def _contains(session: Session, column: InstrumentedAttribute[str], text: str) -> ColumnElement[bool]:
    """Whether the column contains the text, whatever the case of either. No wildcards."""
    if session.get_bind().dialect.name == "sqlite":  # Its own lower() knows ASCII alone.
        return func.instr(func.dgx_casefold(column), text.casefold()) > 0
    return func.strpos(func.lower(column), func.lower(text)) > 0


def _hash(*filters: object) -> str:
    return hashlib.sha256(json.dumps(filters).encode()).hexdigest()[:16]


def _cut(rows: list[Any], limit: int, bound_to: str, position_of: Callable[[Any], list[Any]]) -> tuple[list[Any], str]:
    """The page's rows, and the token of the next where one more row was found."""
    if len(rows) <= limit:
        return rows, ""
    token = json.dumps([bound_to, *position_of(rows[limit - 1])])
    return rows[:limit], base64.urlsafe_b64encode(token.encode()).decode()


def _read_moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("no zone")
    return moment


def _read_id(text: str) -> str:
    return check_uuid("page_token", text)


def _read_number(number: int) -> int:
    if not (isinstance(number, int) and 0 <= number < 2**63):
        raise ValueError("no count or key")
    return number


def _position(token: str, bound_to: str, *readers: Callable[[Any], Any]) -> tuple[Any, ...]:
    """Where the page before ended."""
    try:
        token_bound_to, *position = json.loads(base64.urlsafe_b64decode(token))
        values = tuple(read(value) for read, value in zip(readers, position, strict=True))
    except (ValueError, TypeError, binascii.Error) as error:
        raise InvalidArgument(
            "page_token", "is not one that this list gave; leave it empty for the first page"
        ) from error
    if token_bound_to != bound_to:
        raise InvalidArgument(
            "page_token", "belongs to a list with other filters; send the same filters with each page"
        )
    return values
