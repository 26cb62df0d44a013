"""Reads listings that come in pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from gateway.timeouts import CALL_TIMEOUT_SECONDS

Row = TypeVar("Row")

MAX_PAGE_SIZE = 1000
"""Rows; the most that any service returns in one page."""


async def fetch_first(
    call: Callable[..., Any], request: Any, get_rows: Callable[[Any], Iterable[Row]], limit: int
) -> list[Row]:
    """Returns the first `limit` rows of a listing; `get_rows` extracts them from a response."""
    found: list[Row] = []
    while len(found) < limit:
        request.page_size = min(limit - len(found), MAX_PAGE_SIZE)
        page = await call(request, timeout=CALL_TIMEOUT_SECONDS)
        found += get_rows(page)
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    return found
