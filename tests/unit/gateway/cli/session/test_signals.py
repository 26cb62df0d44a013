"""Cancelling a command with Ctrl-C or SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from gateway.cli.session.signals import guard_signals
from gateway.cli.session.stop_signals import STOP_SIGNALS, Interrupted


async def run_forever(*signals: int) -> None:
    for number in signals:
        os.kill(os.getpid(), number)
    await asyncio.Event().wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_signal_cancels_work_but_not_cleanup(number: int) -> None:
    async def clean_up() -> str:
        return "cleaned up"

    before = signal.getsignal(number)
    try:
        async with guard_signals() as guard:
            with pytest.raises(Interrupted) as caught:
                await guard.run(run_forever(number))
            assert caught.value.exit_status == 128 + number
            assert await guard.run(clean_up()) == "cleaned up"
    finally:
        for one in STOP_SIGNALS:
            signal.signal(one, before if one == number else signal.getsignal(one))


async def test_signal_before_work_prevents_it() -> None:
    async with guard_signals() as guard:
        guard.on_signal(signal.SIGINT)
        with pytest.raises(Interrupted):
            await guard.run(run_forever())


async def test_signal_that_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # As under nohup.
    try:
        async with guard_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_work_that_cancels_itself_is_not_interrupted() -> None:
    async def cancel_itself() -> None:
        raise asyncio.CancelledError

    async with guard_signals() as guard:
        with pytest.raises(asyncio.CancelledError):
            await guard.run(cancel_itself())
