"""Listings that come a page at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from gateway.cli.session.runner import CALL_SECONDS

Row = TypeVar("Row")

LARGEST_PAGE = 1000
"""Rows; no service gives more at once."""


async def first(
    call: Callable[..., Any], request: Any, rows_of: Callable[[Any], Iterable[Row]], limit: int
) -> list[Row]:
    """The first `limit` rows of what the request lists; `rows_of` takes them out of an answer."""
    found: list[Row] = []
    while len(found) < limit:
        request.page_size = min(limit - len(found), LARGEST_PAGE)
        page = await call(request, timeout=CALL_SECONDS)
        found += rows_of(page)
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    return found
