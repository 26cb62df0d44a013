"""The event that a signal sets."""

from __future__ import annotations

import asyncio
import signal

import pytest

from service_runtime.rpc.stop_signal import stop_signal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_first_signal_sets_the_event(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    signal.signal(number, signal.SIG_DFL)  # The tests may have been started under nohup.
    try:
        async with stop_signal() as stop:
            signal.raise_signal(number)
            await asyncio.wait_for(stop.wait(), 60)
    finally:
        signal.signal(number, before)


async def test_hangup_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        async with stop_signal() as stop:
            signal.raise_signal(signal.SIGHUP)
            await asyncio.sleep(0)
            assert not stop.is_set()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
