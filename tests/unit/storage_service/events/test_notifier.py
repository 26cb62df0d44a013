"""Waiting for changes in this process."""

from __future__ import annotations

import asyncio

import pytest

from storage_service.events.notifier import Notifier


@pytest.mark.parametrize("turns", range(4))
async def test_wait_for_sweep_cancelled_while_it_ends_stays_cancelled(turns: int) -> None:
    notifier = Notifier()

    async def sweep() -> None:
        while True:
            await notifier.wait_for_sweep(600)

    sweeping = asyncio.create_task(sweep())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    notifier.close()
    for _ in range(turns):
        await asyncio.sleep(0)
    sweeping.cancel()
    ended, _ = await asyncio.wait([sweeping], timeout=5)
    sweeping.cancel()
    assert ended == {sweeping}
