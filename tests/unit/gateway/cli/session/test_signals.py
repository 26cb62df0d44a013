"""Cancelling a command with Ctrl-C or SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from gateway.cli.session.signals import guard_signals
from gateway.cli.session.stop_signals import Interrupted


async def run_forever(started: asyncio.Event) -> None:
    started.set()
    await asyncio.Event().wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signal_cancels_work_but_not_cleanup(number: int) -> None:
    async def clean_up() -> str:
        return "cleaned up"

    async with guard_signals() as guard:
        started = asyncio.Event()
        working = asyncio.create_task(guard.run(run_forever(started)))
        await started.wait()
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted) as caught:
            await working
        assert caught.value.exit_status == 128 + number
        assert await guard.run(clean_up()) == "cleaned up"


async def test_signal_before_work_prevents_it() -> None:
    async with guard_signals() as guard:
        guard.on_signal(signal.SIGINT)
        with pytest.raises(Interrupted):
            await guard.run(run_forever(asyncio.Event()))


async def test_work_that_cancels_itself_is_not_interrupted() -> None:
    async def cancel_itself() -> None:
        raise asyncio.CancelledError

    async with guard_signals() as guard:
        with pytest.raises(asyncio.CancelledError):
            await guard.run(cancel_itself())
