"""Where a page of a list begins: after the last row of the previous page, whatever was created or deleted meanwhile.

A page token is opaque to callers. It contains the position and a hash of the filters, so that it can't be used with
other filters.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from dgx_music.errors import InvalidArgument
from service_runtime.validation import check_uuid

MAX_TOKEN_CHARACTERS = 500
"""More than any has. Lists in lists by the thousand would be too deep for the parser."""


def hash_filters(*filters: object) -> str:
    """Returns a hash that only the page tokens of a list with these filters have."""
    return hashlib.sha256(json.dumps(filters).encode()).hexdigest()[:16]


def split_page(
    rows: list[Any], limit: int, filters_hash: str, get_position: Callable[[Any], list[Any]]
) -> tuple[list[Any], str]:
    """Returns the rows of the page, and the token of the next page if there is one more row."""
    if len(rows) <= limit:
        return rows, ""
    token = json.dumps([filters_hash, *get_position(rows[limit - 1])])
    return rows[:limit], base64.urlsafe_b64encode(token.encode()).decode()


def decode_page_token(token: str, filters_hash: str, *readers: Callable[[Any], Any]) -> tuple[Any, ...]:
    """Returns the position at which the previous page ended. Raises InvalidArgument for any other token."""
    try:
        token_hash, *position = json.loads(base64.urlsafe_b64decode(token[:MAX_TOKEN_CHARACTERS]))
        values = tuple(read(value) for read, value in zip(readers, position, strict=True))
    except (ValueError, TypeError, OverflowError, binascii.Error) as error:
        raise InvalidArgument("page_token", "is not a token of this list; leave it empty for the first page") from error
    if token_hash != filters_hash:
        raise InvalidArgument("page_token", "was created with other filters; send the same filters with each page")
    return values


def parse_timestamp(text: str) -> datetime:
    """Reads a time with a time zone, between the years 1 and 9999 of UTC."""
    timestamp = datetime.fromisoformat(text)
    if timestamp.tzinfo is None:
        raise ValueError("the time zone is missing")
    return timestamp.astimezone(UTC)


def parse_uuid(text: str) -> str:
    """Reads a UUID."""
    return check_uuid("page_token", text)


def parse_number(number: int) -> int:
    """Reads a count or an integer key."""
    if not (isinstance(number, int) and 0 <= number < 2**63):
        raise ValueError("not a valid count or key")
    return number
