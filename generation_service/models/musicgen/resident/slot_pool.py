"""The places in the batch: which slots of the state are free."""

from __future__ import annotations

from collections.abc import Sequence

from dgx_music.errors import ResourceExhausted
from generation_service.models.musicgen.conditions import MAX_BRANCHES
from generation_service.models.musicgen.lm.kv_cache import RETRY_SECONDS
from generation_service.models.musicgen.sampling import CFG_ROWS


def count_slots(branches: int) -> int:
    """The slots of a request with this many branches: a slot has two rows, and the negative condition takes one."""
    return -(-(branches + 1) // CFG_ROWS)


MIN_SLOTS = count_slots(MAX_BRANCHES)
"""The slots of a request with the most branches."""


class SlotPool:
    """The slots for a number of requests; fewer fit if some have several branches."""

    def __init__(self, requests: int) -> None:
        self.requests = requests
        """The number of requests at a time."""
        self.count = max(requests, MIN_SLOTS)
        """The number of slots."""
        self._free = list(range(self.count - 1, -1, -1))
        self._reserved = 0

    def reserve(self, branches: int) -> Sequence[int]:
        """The slots of a request, the leading one first. Raises ResourceExhausted if there are too few."""
        needed = count_slots(branches)
        if self._reserved == self.requests:
            raise _batch_full(f"all {self.requests} places in the batch are taken")
        if needed > len(self._free):
            raise _batch_full(f"the request takes {needed} places in the batch, of which {len(self._free)} are free")
        self._reserved += 1
        return [self._free.pop() for _ in range(needed)]

    def release(self, slots: Sequence[int]) -> None:
        """Frees what `reserve` has returned."""
        self._reserved -= 1
        self._free += reversed(slots)


def _batch_full(problem: str) -> ResourceExhausted:
    return ResourceExhausted(
        f"{problem}; retry when a generation has finished", reason="BATCH_FULL", retry_after_seconds=RETRY_SECONDS
    )
