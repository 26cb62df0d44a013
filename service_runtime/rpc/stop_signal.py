"""SIGTERM, SIGINT, and SIGHUP of a closed terminal: the first starts the drain, the second ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from service_runtime.supervision import UnrecoverableError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""SIGHUP is left alone if it is ignored, as under nohup."""


class _StopEvent(asyncio.Event):
    """Set when the process should stop."""

    cause: UnrecoverableError | None = None
    """The error that the process stops for; None if it was a signal."""


_stop_event: ContextVar[_StopEvent | None] = ContextVar("_stop_event", default=None)
"""The event of the enclosing `stop_signal`."""


@asynccontextmanager
async def stop_signal() -> AsyncIterator[asyncio.Event]:
    """Yields an event that the first of `STOP_SIGNALS` sets; the second exits at once, with status 128 + its number.

    An UnrecoverableError in a service that was started inside the block sets the event too; it is raised at the end.
    """
    loop, stop = asyncio.get_running_loop(), _StopEvent()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    handled = [number for number in STOP_SIGNALS if not _is_ignored_hangup(number)]
    for number in handled:
        loop.add_signal_handler(number, on_signal, number)
    token = _stop_event.set(stop)
    try:
        yield stop
    finally:
        _stop_event.reset(token)
        for number in handled:
            loop.remove_signal_handler(number)
    if stop.cause is not None:
        raise stop.cause


def _is_ignored_hangup(number: signal.Signals) -> bool:
    return number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN


def request_stop(cause: UnrecoverableError) -> None:
    """Sets the event of the enclosing `stop_signal`, which raises `cause` after the drain; without one does nothing."""
    if (stop := _stop_event.get()) is not None:
        stop.cause = cause
        stop.set()
