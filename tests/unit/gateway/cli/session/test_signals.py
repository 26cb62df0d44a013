"""What Ctrl-C and SIGTERM do to a command."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from gateway.cli.session.command_errors import Interrupted
from gateway.cli.session.signals import interrupts


async def endless(began: asyncio.Event) -> None:
    began.set()
    await asyncio.Event().wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_work_and_lets_what_follows_run(number: int) -> None:
    async def put_away() -> str:
        return "put away"

    async with interrupts() as interrupt:
        began = asyncio.Event()
        working = asyncio.create_task(interrupt.run(endless(began)))
        await began.wait()
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted) as caught:
            await working
        assert caught.value.exit_status == 128 + number
        assert await interrupt.run(put_away()) == "put away"


async def test_a_signal_before_the_work_keeps_it_from_running() -> None:
    async with interrupts() as interrupt:
        interrupt.on_signal(signal.SIGINT)
        with pytest.raises(Interrupted):
            await interrupt.run(endless(asyncio.Event()))


async def test_work_that_is_cancelled_by_itself_is_no_interrupt() -> None:
    async def give_up() -> None:
        raise asyncio.CancelledError

    async with interrupts() as interrupt:
        with pytest.raises(asyncio.CancelledError):
            await interrupt.run(give_up())
