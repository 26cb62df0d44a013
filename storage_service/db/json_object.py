"""The JSON objects in a row, which most who load the row never look into."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


class JsonObject(Mapping[str, Any]):
    """A JSON object as the database gives it, decoded when it is first looked into: in a list of a thousand rows that
    would be half of the work. Read-only."""

    __slots__ = ("_encoded", "_members")

    def __init__(self, encoded: str | bytes) -> None:
        self._encoded = encoded
        self._members: dict[str, Any] | None = None

    def __getitem__(self, name: str) -> Any:
        return self._decoded()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._decoded())

    def __len__(self) -> int:
        return len(self._decoded())

    def __repr__(self) -> str:
        return repr(self._decoded())

    def _decoded(self) -> dict[str, Any]:
        if self._members is None:
            self._members = json.loads(self._encoded)
        return self._members


def encode(value: Any, *, sort_keys: bool = False) -> str:
    """As JSON, in as few bytes as it takes."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys, default=dict)
