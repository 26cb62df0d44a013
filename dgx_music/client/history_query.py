"""Reads the history of generations page by page."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from typing import TypedDict

from dgx_music.client.connection import Connection
from dgx_music.client.generation_fields import STATES, State
from dgx_music.errors import InvalidArgument
from dgx_music.storage.v1.storage_pb2 import Generation, ListGenerationsRequest

MAX_PAGE_SIZE = 1000
"""Rows; the most that the server returns in one page."""


class HistoryFilters(TypedDict, total=False):
    """Which generations to list: those that match all that is given."""

    search: str | None
    """A text in the prompt, whatever the case."""
    model: str | None
    """Name of the model."""
    state: State | Sequence[State] | None
    """A state or several, e.g. "completed"."""
    min_rating: int | None
    """Rated at least this, 1 to 5."""
    min_bpm: float | None
    """Tempo of at least this in beats per minute."""
    max_bpm: float | None
    """Tempo of at most this in beats per minute."""
    key: str | None
    """Key, e.g. "A minor" or "Bb major"."""
    client: str | None
    """Who created them."""
    created_after: datetime | None
    """Created at this time or later; a time without a zone is local."""
    created_before: datetime | None
    """Created before this time; a time without a zone is local."""
    limit: int | None
    """Maximum number of generations, the newest ones. Default: all."""


async def list_generations(connection: Connection, filters: HistoryFilters) -> AsyncGenerator[Generation, None]:
    """Yields the generations, newest first. Raises InvalidArgument if a filter is invalid."""
    request, left = _build_request(filters), filters.get("limit")
    if left is not None and left < 0:
        raise InvalidArgument("limit", f"must not be negative, not {left}")
    while left is None or left > 0:
        request.page_size = MAX_PAGE_SIZE if left is None else min(left, MAX_PAGE_SIZE)
        page = await connection.call(connection.music.ListGenerations, request)
        for generation in page.generations:
            yield generation
        if left is not None:
            left -= len(page.generations)
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def _build_request(filters: HistoryFilters) -> ListGenerationsRequest:
    state = filters.get("state")
    states = [state] if isinstance(state, str) else state or []
    if unknown := [name for name in states if name not in STATES]:
        raise InvalidArgument("state", f"must be one of {', '.join(STATES)}, not {unknown[0]!r}")
    request = ListGenerationsRequest(
        states=[STATES[name] for name in states],
        model_name=filters.get("model") or "",
        prompt_contains=filters.get("search") or "",
        min_rating=filters.get("min_rating") or 0,
        min_bpm=filters.get("min_bpm") or 0.0,
        max_bpm=filters.get("max_bpm") or 0.0,
        key=filters.get("key") or "",
        client=filters.get("client") or "",
    )
    if after := filters.get("created_after"):
        request.created_after.FromDatetime(after.astimezone(UTC))
    if before := filters.get("created_before"):
        request.created_before.FromDatetime(before.astimezone(UTC))
    return request
