"""What Ctrl-C and SIGTERM do to a command: the first one cancels it, the second one ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from gateway.cli.session.command_errors import Interrupted

T = TypeVar("T")


class Interrupt:
    """The first SIGINT or SIGTERM cancels what `run` runs; the second ends the process at once."""

    def __init__(self) -> None:
        self._signal: int | None = None
        self._task: asyncio.Task[Any] | None = None
        self._early = False

    def on_signal(self, number: int) -> None:
        if self._signal is not None:
            os._exit(128 + number)
        self._signal = number
        if self._task is None:
            self._early = True
        else:
            self._task.cancel()

    async def run(self, work: Coroutine[None, None, T]) -> T:
        """What the work gives. Raises Interrupted once it has ended because of a signal, or if one came before it."""
        self._task = task = asyncio.create_task(work)
        if self._early:
            task.cancel()
            self._early = False
        try:
            return await task
        except asyncio.CancelledError:
            if self._signal is None:
                raise
            raise Interrupted(self._signal) from None
        finally:
            self._task = None


@asynccontextmanager
async def interrupts() -> AsyncIterator[Interrupt]:
    """Takes the two signals over while the block runs."""
    loop, interrupt = asyncio.get_running_loop(), Interrupt()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt.on_signal, number)
    try:
        yield interrupt
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
