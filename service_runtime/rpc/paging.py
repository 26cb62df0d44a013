"""Which page of a list is requested (AIP-158)."""

from __future__ import annotations

from dataclasses import dataclass

from dgx_music.errors import InvalidArgument

DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE = 50, 1000


@dataclass(frozen=True)
class Page:
    """The requested page."""

    size: int = 0
    """Number of rows as requested; 0 means the default."""
    token: str = ""
    """The previous page's token; empty for the first page."""

    @property
    def limit(self) -> int:
        """The number of rows to return. Raises InvalidArgument if the size is negative."""
        if self.size < 0:
            raise InvalidArgument("page_size", f"must be at least 0 (0 means {DEFAULT_PAGE_SIZE}), not {self.size}")
        return min(self.size, MAX_PAGE_SIZE) or DEFAULT_PAGE_SIZE
