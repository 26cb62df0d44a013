"""SIGTERM and SIGINT: the first signal starts the drain, the second ends the process immediately."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from service_runtime.supervision import UnrecoverableError


class _StopEvent(asyncio.Event):
    """Set when the process should stop."""

    cause: UnrecoverableError | None = None
    """The error that the process stops for; None if it was a signal."""


_stop_event: ContextVar[_StopEvent | None] = ContextVar("_stop_event", default=None)
"""The event of the enclosing `stop_signal`."""


@asynccontextmanager
async def stop_signal() -> AsyncIterator[asyncio.Event]:
    """Yields an event that the first SIGTERM or SIGINT sets; the second exits at once, with status 128 + its number.

    An UnrecoverableError in a service that was started inside the block sets the event too; it is raised at the end.
    """
    loop, stop = asyncio.get_running_loop(), _StopEvent()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    token = _stop_event.set(stop)
    try:
        yield stop
    finally:
        _stop_event.reset(token)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    if stop.cause is not None:
        raise stop.cause


def request_stop(cause: UnrecoverableError) -> None:
    """Sets the event of the enclosing `stop_signal`, which raises `cause` after the drain; without one does nothing."""
    if (stop := _stop_event.get()) is not None:
        stop.cause = cause
        stop.set()
