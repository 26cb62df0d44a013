"""Lists of generations and prompts, filtered and in pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Select, func, literal, select, tuple_, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session

from dgx_music.limits import MAX_PROMPT_CHARACTERS, MAX_RATING
from service_runtime.rpc.paging import Page
from service_runtime.validation import check_range, check_text
from storage_service.db.models import Generation, Prompt
from storage_service.domain.page_tokens import (
    decode_page_token,
    hash_filters,
    parse_number,
    parse_timestamp,
    parse_uuid,
    split_page,
)
from storage_service.domain.request_validation import MAX_NAME_CHARACTERS, check_name
from storage_service.states import GenerationStatus


class PromptOrder(StrEnum):
    """The order of a list of prompts."""

    MOST_USED = "most_used"
    MOST_RECENT = "most_recent"


@dataclass(frozen=True)
class GenerationFilter:
    """Filters of a list of generations, all of which must match."""

    statuses: Sequence[GenerationStatus] = ()
    model_name: str = ""
    prompt_contains: str = ""
    created_after: datetime | None = None
    created_before: datetime | None = None
    min_rating: int = 0
    client: str = ""


def list_generations(session: Session, filters: GenerationFilter, page: Page) -> tuple[list[Generation], str]:
    """Returns a page of generations, newest first, and the token of the next page, which is empty on the last."""
    where: list[ColumnElement[bool]] = []
    if filters.model_name:
        check_name("model_name", filters.model_name)
        where.append(Generation.model_name == filters.model_name)
    if filters.prompt_contains:
        check_text("prompt_contains", filters.prompt_contains, MAX_PROMPT_CHARACTERS)
        where.append(_contains(session, Generation.prompt, filters.prompt_contains))
    if filters.created_after is not None:
        where.append(Generation.created_at >= filters.created_after)
    if filters.created_before is not None:
        where.append(Generation.created_at < filters.created_before)
    if filters.client:
        check_text("client", filters.client, MAX_NAME_CHARACTERS)
        is_named = Generation.client != literal("", literal_execute=True)  # As in the index's condition.
        where += [Generation.client == filters.client, is_named]
    check_range("min_rating", filters.min_rating, 0, MAX_RATING)
    filters_hash = hash_filters(
        "generations", sorted(filters.statuses), *(str(value) for value in list(vars(filters).values())[1:])
    )
    if page.token:
        created_at, last_id = decode_page_token(page.token, filters_hash, parse_timestamp, parse_uuid)
        where.append(tuple_(Generation.created_at, Generation.id) < (created_at, last_id))
    rows = list(session.scalars(_select_newest(filters, where, page.limit + 1)))
    return split_page(rows, page.limit, filters_hash, lambda row: [row.created_at.isoformat(), row.id])


def _select_newest(filters: GenerationFilter, where: list[ColumnElement[bool]], limit: int) -> Select[Generation]:
    """Returns a query for the newest generations in the filter's states and with its ratings.

    Each rating and each state is a contiguous run of an index. For several, the newest of each are found first, then
    those of all. If both are chosen, the ratings make the runs: fewer rows are rated than are in most states.
    """
    newest_first = Generation.created_at.desc(), Generation.id.desc()
    is_any_status = set(filters.statuses) >= set(GenerationStatus)
    statuses = [] if is_any_status else sorted(set(filters.statuses))
    runs = [Generation.status == status for status in statuses]
    if filters.min_rating:
        where = [*where, Generation.status.in_(statuses)] if statuses else where
        runs = [Generation.rating == rating for rating in range(filters.min_rating, MAX_RATING + 1)]
    if len(runs) <= 1:
        found = select(Generation).where(*runs, *where)
    else:
        newest = [select(Generation.id).where(run, *where).order_by(*newest_first).limit(limit) for run in runs]
        ids = union_all(*(select(run.subquery().c.id) for run in newest))
        found = select(Generation).where(Generation.id.in_(ids))
    return found.order_by(*newest_first).limit(limit)


def list_prompts(session: Session, order: PromptOrder, text_contains: str, page: Page) -> tuple[list[Prompt], str]:
    """Returns a page of prompts, and the token of the next page, which is empty on the last."""
    where: list[ColumnElement[bool]] = []
    if text_contains:
        check_text("text_contains", text_contains, MAX_PROMPT_CHARACTERS)
        where.append(_contains(session, Prompt.text, text_contains))
    filters_hash = hash_filters("prompts", order, text_contains)
    is_by_use = order is PromptOrder.MOST_USED
    key: InstrumentedAttribute[Any] = Prompt.used_count if is_by_use else Prompt.last_used_at
    if page.token:
        read_key = parse_number if is_by_use else parse_timestamp
        where.append(tuple_(key, Prompt.id) < decode_page_token(page.token, filters_hash, read_key, parse_number))
    ordered = select(Prompt).where(*where).order_by(key.desc(), Prompt.id.desc())
    rows = list(session.scalars(ordered.limit(page.limit + 1)))
    return split_page(
        rows,
        page.limit,
        filters_hash,
        lambda row: [row.used_count if is_by_use else row.last_used_at.isoformat(), row.id],
    )


def _contains(session: Session, column: InstrumentedAttribute[str], text: str) -> ColumnElement[bool]:
    """Returns the condition that the column contains the text, ignoring case and without wildcards."""
    if session.get_bind().dialect.name == "sqlite":  # SQLite's lower() handles only ASCII.
        return func.instr(func.dgx_casefold(column), text.casefold()) > 0
    return func.strpos(func.lower(column), func.lower(text)) > 0
