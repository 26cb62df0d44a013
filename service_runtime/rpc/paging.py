"""Which page of a list is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from dgx_music.errors import InvalidArgument

DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE = 50, 1000


@dataclass(frozen=True)
class Page:
    """How many rows, and the token that the page before gave."""

    size: int = 0
    token: str = ""

    @property
    def limit(self) -> int:
        """Rows to give. InvalidArgument if the size is negative."""
        if self.size < 0:
            raise InvalidArgument("page_size", f"must be 0 (for {DEFAULT_PAGE_SIZE}) or more, not {self.size}")
        return min(self.size, MAX_PAGE_SIZE) or DEFAULT_PAGE_SIZE
