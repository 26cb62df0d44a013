"""Lists of generations and prompts, filtered and in pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Select, Text, and_, cast, func, literal, select, true, tuple_, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session

from dgx_music.limits import MAX_PROMPT_CHARACTERS, MAX_RATING
from service_runtime.rpc.paging import Page
from service_runtime.validation import check_range, check_text
from storage_service.db.models import Generation, GenerationCount, Prompt
from storage_service.domain.page_tokens import (
    decode_page_token,
    hash_filters,
    parse_number,
    parse_timestamp,
    parse_uuid,
    split_page,
)
from storage_service.domain.request_validation import MAX_NAME_CHARACTERS, check_name
from storage_service.search.musical_properties import select_musical
from storage_service.search.prompt_index import PromptIndex
from storage_service.states import GenerationStatus

SCANNED_ROWS = 10_000
SCANNED_PER_MATCH = 50
"""How many of the first rows of a list are read to fill a page with those that contain a common text: at least so many,
and so many for each row of the page."""

MANY_PROMPTS = 20_000
"""With so many prompts that have a text, it pays to try those that were used last first."""
RECENT_PROMPTS = 500
"""How many are tried."""

ROWS_PER_PROMPT = 25
"""Finding the newest generation of a prompt takes as long as reading so many rows of a list."""


class PromptOrder(StrEnum):
    """The order of a list of prompts."""

    MOST_USED = "most_used"
    MOST_RECENT = "most_recent"


_NEWEST_FIRST = Generation.created_at.desc(), Generation.id.desc()


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
    min_bpm: float = 0.0
    max_bpm: float = 0.0
    key: str = ""

    @property
    def is_musical(self) -> bool:
        """Whether tempo or key choose."""
        return bool(self.min_bpm or self.max_bpm or self.key)


def list_generations(session: Session, filters: GenerationFilter, page: Page) -> tuple[list[Generation], str]:
    """Returns a page of generations, newest first, and the token of the next page, which is empty on the last."""
    times, names = _build_conditions(filters)
    filters_hash = hash_filters(
        "generations", sorted(filters.statuses), *(str(value) for value in list(vars(filters).values())[1:])
    )
    if page.token:
        created_at, last_id = decode_page_token(page.token, filters_hash, parse_timestamp, parse_uuid)
        times.append(tuple_(Generation.created_at, Generation.id) < (created_at, last_id))
    limit = page.limit + 1
    if filters.prompt_contains:
        rows = _search_generations(session, filters, times, names, limit)
    else:
        rows = list(session.scalars(_select_newest(filters, [*times, *names], limit)))
    return split_page(rows, page.limit, filters_hash, lambda row: [row.created_at.isoformat(), row.id])


def _build_conditions(filters: GenerationFilter) -> tuple[list[ColumnElement[bool]], list[ColumnElement[bool]]]:
    """Returns the conditions of times and of names. Raises InvalidArgument for an invalid value of any filter."""
    times: list[ColumnElement[bool]] = []
    names: list[ColumnElement[bool]] = []
    if filters.model_name:
        check_name("model_name", filters.model_name)
        names.append(_beside_music(filters, Generation.model_name) == filters.model_name)
    if filters.prompt_contains:
        check_text("prompt_contains", filters.prompt_contains, MAX_PROMPT_CHARACTERS)
    if filters.created_after is not None:
        times.append(Generation.created_at >= filters.created_after)
    if filters.created_before is not None:
        times.append(Generation.created_at < filters.created_before)
    if filters.client:
        check_text("client", filters.client, MAX_NAME_CHARACTERS)
        names += _is_of_client(filters.client)
    names += select_musical(filters.min_bpm, filters.max_bpm, filters.key)
    check_range("min_rating", filters.min_rating, 0, MAX_RATING)
    return times, names


def _beside_music(filters: GenerationFilter, column: InstrumentedAttribute[Any]) -> ColumnElement[Any]:
    """Returns the column, so that SQLite looks no row up by it if tempo or key choose: their index tells of each row
    whether it matches, without reading it, and so finds rare ones faster than that of a state or a model.
    """
    return cast(column, Text) if filters.is_musical else column.expression


def _is_of_client(client: str) -> list[ColumnElement[bool]]:
    # Also as in the index's condition.
    return [Generation.client == client, Generation.client != literal("", literal_execute=True)]


def _search_generations(
    session: Session,
    filters: GenerationFilter,
    times: list[ColumnElement[bool]],
    names: list[ColumnElement[bool]],
    limit: int,
) -> list[Generation]:
    """Returns the newest generations whose prompts contain the filter's text, of those that meet all conditions.

    A common text is found by reading some of the newest rows, and a rare one by the index: neither serves for both. If
    some of the newest rows do not fill the page, the text is rare among them, whatever it is among the older ones. The
    page is then mostly of the prompts that were used last, unless other filters choose. If it is not, all rows are read
    if that is less work than looking up what the index finds.
    """
    index, where = PromptIndex(session, filters.prompt_contains), [*times, *names]
    if not index.find_rare():
        read_until = session.scalar(_select_read_until(filters, times, limit))
        scanned = [*where, index.contains(Generation.prompt)]
        if read_until is not None:
            scanned.append(Generation.created_at >= read_until)
        rows = list(session.scalars(_select_newest(filters, scanned, limit)))
        if read_until is None or len(rows) == limit:
            return rows
        has_only_times = not (names or filters.statuses or filters.min_rating)
        if has_only_times and index.finds_more_than(MANY_PROMPTS):
            recent = _search_recent_prompts(session, index, where, limit)
            if recent is not None:
                return recent
        total = session.scalar(select(func.sum(GenerationCount.generations))) or 0
        if index.finds_more_than(int(total) // ROWS_PER_PROMPT):
            return list(session.scalars(_select_newest(filters, [*where, index.contains(Generation.prompt)], limit)))
    if filters.statuses:
        where.append(Generation.status.in_(sorted(set(filters.statuses))))
    if filters.min_rating:
        where.append(Generation.rating >= filters.min_rating)
    return _load(session, index.newest_generations(where, limit))


def _search_recent_prompts(
    session: Session, index: PromptIndex, where: list[ColumnElement[bool]], limit: int
) -> list[Generation] | None:
    """Returns the newest generations of all if they are of the prompts that were used last: of each other prompt, all
    are older than its last use. Returns None if they are not.
    """
    prompts = _search_prompts(session, index, Prompt.last_used_at, [], RECENT_PROMPTS + 1)
    others = prompts[RECENT_PROMPTS:]
    rows = _load(session, index.newest_generations(where, limit, [one.id for one in prompts[:RECENT_PROMPTS]]))
    is_whole = not others or (len(rows) == limit and rows[-1].created_at > others[0].last_used_at)
    return rows if is_whole else None


def _load(session: Session, ids: Select[str]) -> list[Generation]:
    return list(session.scalars(select(Generation).where(Generation.id.in_(ids)).order_by(*_NEWEST_FIRST)))


def _select_read_until(filters: GenerationFilter, times: list[ColumnElement[bool]], limit: int) -> Select[datetime]:
    """Returns a query for the time of creation down to which rows are read; it finds none if there are fewer rows.

    It reads only an index, in its order: which rows meet the other conditions is not known without reading them.
    """
    runs = _index_runs(filters)
    if not filters.min_rating and filters.client:
        runs = [and_(*_is_of_client(filters.client))]
    elif runs == [] and filters.model_name:
        runs = [Generation.model_name == filters.model_name]
    created_at, count = Generation.created_at, max(SCANNED_ROWS, SCANNED_PER_MATCH * limit)
    newest = [
        select(created_at).where(run, *times).order_by(created_at.desc()).limit(count) for run in runs or [true()]
    ]
    read = union_all(*(select(run.subquery().c.created_at) for run in newest)).subquery()
    return select(read.c.created_at).order_by(read.c.created_at.desc()).offset(count - 1).limit(1)


def _select_newest(filters: GenerationFilter, where: list[ColumnElement[bool]], limit: int) -> Select[Generation]:
    """Returns a query for the newest generations in the filter's states and with its ratings."""
    runs = _index_runs(filters)
    if filters.statuses and (filters.min_rating or filters.is_musical):
        status = _beside_music(filters, Generation.status)
        where = [*where, status.in_([one.value for one in sorted(set(filters.statuses))])]
    if len(runs) <= 1:
        found = select(Generation).where(*runs, *where)
    else:
        newest = [select(Generation.id).where(run, *where).order_by(*_NEWEST_FIRST).limit(limit) for run in runs]
        ids = union_all(*(select(run.subquery().c.id) for run in newest))
        found = select(Generation).where(Generation.id.in_(ids))
    return found.order_by(*_NEWEST_FIRST).limit(limit)


def _index_runs(filters: GenerationFilter) -> list[ColumnElement[bool]]:
    """Returns the conditions of the contiguous runs of an index that have the filter's states or ratings.

    For several, the newest of each are found first, then those of all. If both are chosen, the ratings make the runs:
    fewer rows are rated than are in most states. The index of tempo and key has all states, in one run.
    """
    if filters.min_rating:
        return [Generation.rating == rating for rating in range(filters.min_rating, MAX_RATING + 1)]
    if filters.is_musical or set(filters.statuses) >= set(GenerationStatus):
        return []
    return [Generation.status == status for status in sorted(set(filters.statuses))]


def list_prompts(session: Session, order: PromptOrder, text_contains: str, page: Page) -> tuple[list[Prompt], str]:
    """Returns a page of prompts, and the token of the next page, which is empty on the last."""
    where: list[ColumnElement[bool]] = []
    if text_contains:
        check_text("text_contains", text_contains, MAX_PROMPT_CHARACTERS)
    filters_hash = hash_filters("prompts", order, text_contains)
    is_by_use = order is PromptOrder.MOST_USED
    key: InstrumentedAttribute[Any] = Prompt.used_count if is_by_use else Prompt.last_used_at
    if page.token:
        read_key = parse_number if is_by_use else parse_timestamp
        where.append(tuple_(key, Prompt.id) < decode_page_token(page.token, filters_hash, read_key, parse_number))
    limit = page.limit + 1
    if text_contains:
        rows = _search_prompts(session, PromptIndex(session, text_contains), key, where, limit)
    else:
        rows = list(session.scalars(_select_first_prompts(key, where, limit)))
    return split_page(
        rows,
        page.limit,
        filters_hash,
        lambda row: [row.used_count if is_by_use else row.last_used_at.isoformat(), row.id],
    )


def _search_prompts(
    session: Session, index: PromptIndex, key: InstrumentedAttribute[Any], where: list[ColumnElement[bool]], limit: int
) -> list[Prompt]:
    """Does for prompts what `_search_generations` does for generations."""
    if not index.find_rare():
        count = max(SCANNED_ROWS, SCANNED_PER_MATCH * limit)
        place = select(key, Prompt.id).where(*where).order_by(key.desc(), Prompt.id.desc())
        read_until = session.execute(place.offset(count - 1).limit(1)).one_or_none()
        scanned = [*where, index.contains(Prompt.text)]
        if read_until is not None:  # Of most prompts the key may be the same: that they were used once.
            scanned.append(tuple_(key, Prompt.id) >= tuple(read_until))
        rows = list(session.scalars(_select_first_prompts(key, scanned, limit)))
        if read_until is None or len(rows) == limit:
            return rows
    return list(session.scalars(_select_first_prompts(key, [*where, index.matching_prompts()], limit)))


def _select_first_prompts(
    key: InstrumentedAttribute[Any], where: list[ColumnElement[bool]], limit: int
) -> Select[Prompt]:
    return select(Prompt).where(*where).order_by(key.desc(), Prompt.id.desc()).limit(limit)
