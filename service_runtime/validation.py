"""Ids in requests: UUIDs, of which only the canonical form goes on into a row or a path."""

from __future__ import annotations

import re

from dgx_music.errors import InvalidArgument

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)


def is_uuid(value: str) -> bool:
    """Whether this is a UUID, in either case."""
    return _UUID.fullmatch(value) is not None


def check_uuid(field: str, value: str) -> str:
    """The UUID in lower case. InvalidArgument, naming the field, where it is none."""
    if not is_uuid(value):
        raise InvalidArgument(field, f"must be a UUID such as 1b4e28ba-2fa1-41d2-883f-0016d3cca427, not {value[:60]!r}")
    return value.lower()
