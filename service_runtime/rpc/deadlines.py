"""Deadlines are passed on: a call made while serving another gets no more than the time that is left of it."""

from __future__ import annotations

import time
from contextvars import ContextVar

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


def set_deadline(seconds: float | None) -> None:
    """Called by the server for each call it serves: `seconds` are left of it, None for no end."""
    _deadline.set(None if seconds is None else time.monotonic() + seconds)


def time_left(at_most: float) -> float:
    """Seconds for a call to another service: `at_most`, or what is left of the call being served if that is less."""
    deadline = _deadline.get()
    return at_most if deadline is None else max(0.0, min(at_most, deadline - time.monotonic()))
