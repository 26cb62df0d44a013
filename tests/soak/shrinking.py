"""Finds a shorter list of events that still fails, by delta debugging (Zeller and Hildebrandt 2002, ddmin)."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

Event = TypeVar("Event")


async def shrink(
    events: Sequence[Event], fails: Callable[[Sequence[Event]], Awaitable[bool]], seconds: float
) -> list[Event]:
    """Returns a part of `events`, in their order, with which `fails` returned True; all of them if no part has.

    Starts no further try after `seconds`. If there is time, no single event can be left out of the result.
    """
    gives_up_at = time.monotonic() + seconds
    left, parts = list(events), 2
    if left and seconds and await fails([]):
        return []
    while len(left) > 1 and time.monotonic() < gives_up_at:
        size = -(-len(left) // parts)
        for start in range(0, len(left), size):
            candidate = left[:start] + left[start + size :]
            if time.monotonic() < gives_up_at and await fails(candidate):
                left, parts = candidate, max(parts - 1, 2)
                break
        else:
            if size == 1:
                break
            parts = min(2 * parts, len(left))
    return left
