"""Ctrl-C, SIGTERM and SIGHUP: the first signal cancels the command, the second one ends the process at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from gateway.cli.session.stop_signals import Interrupted, exit_on_signal, handled_signals, received_signal

T = TypeVar("T")


class SignalGuard:
    """Cancels what `run` is running."""

    def __init__(self) -> None:
        self._signal: int | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancel_next = False

    def on_signal(self, number: int) -> None:
        """Cancels what is running, or what will be run first."""
        self._signal = number
        if self._task is None:
            self._cancel_next = True
        else:
            self._task.cancel()

    async def run(self, work: Coroutine[None, None, T]) -> T:
        """Returns the result of `work`. Raises Interrupted if a signal cancelled it, or came before it started."""
        self._task = task = asyncio.create_task(work)
        if self._cancel_next:
            task.cancel()
            self._cancel_next = False
        try:
            return await task
        except asyncio.CancelledError:
            if self._signal is None:
                raise
            raise Interrupted(self._signal) from None
        finally:
            self._task = None


@asynccontextmanager
async def guard_signals() -> AsyncIterator[SignalGuard]:
    """Handles signals while the block runs."""
    loop, guard = asyncio.get_running_loop(), SignalGuard()
    before = {number: signal.getsignal(number) for number in handled_signals()}

    def on_first(number: int, frame: object) -> None:
        # Not the loop's own handlers: while it is blocked, as by a full pipe, the second signal could not end it.
        before.clear()
        exit_on_signal()
        loop.call_soon_threadsafe(guard.on_signal, number)

    for number in before:
        signal.signal(number, on_first)
    if early := received_signal():
        guard.on_signal(early)
    try:
        yield guard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
