"""SIGTERM and SIGINT: the first one drains the servers, the second one ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from service_runtime.supervision import UnrecoverableError


class _Stop(asyncio.Event):
    """Set when the process is to end."""

    reason: UnrecoverableError | None = None
    """What it ends of; None: it was told to."""


_stop: ContextVar[_Stop | None] = ContextVar("_stop", default=None)
"""Of the `stop_signal` that the servers started inside it belong to."""


@asynccontextmanager
async def stop_signal() -> AsyncIterator[asyncio.Event]:
    """An event that the first SIGTERM or SIGINT sets; the second ends the process at once, with 128 + its number.

    A service started inside that is UnrecoverableError sets it as well; the error is raised at the end.
    """
    loop, stop = asyncio.get_running_loop(), _Stop()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    before = _stop.set(stop)
    try:
        yield stop
    finally:
        _stop.reset(before)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    if stop.reason is not None:
        raise stop.reason


def stop_for(error: UnrecoverableError) -> None:
    """Ends the process that serves, if a `stop_signal` surrounds it; the error is raised once it has drained."""
    if (stop := _stop.get()) is not None:
        stop.reason = error
        stop.set()
