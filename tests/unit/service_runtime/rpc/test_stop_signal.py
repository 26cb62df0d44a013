"""The event that a signal sets."""

from __future__ import annotations

import asyncio
import signal

from service_runtime.rpc.stop_signal import stop_signal


async def test_first_signal_sets_the_event() -> None:
    async with stop_signal() as stop:
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(stop.wait(), 60)
