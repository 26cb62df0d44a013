"""Deadline propagation: a call made on behalf of another call gets at most the time that is left for that one."""

from __future__ import annotations

import time
from contextvars import ContextVar

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)
"""When the current call ends, by `time.monotonic()`."""


def set_deadline(seconds: float | None) -> None:
    """Sets the deadline of the call being served to `seconds` from now; None means that it has no deadline."""
    _deadline.set(None if seconds is None else time.monotonic() + seconds)


def time_left(at_most: float) -> float:
    """Returns the timeout for a downstream call in seconds: `at_most`, or what is left of the current call if less."""
    deadline = _deadline.get()
    return at_most if deadline is None else max(0.0, min(at_most, deadline - time.monotonic()))
