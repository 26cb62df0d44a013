"""Waiting for changes in this process."""

from __future__ import annotations

import asyncio

import pytest

from storage_service.events.changes import Change
from storage_service.events.notifier import Notifier

NEW = Change("00000000-0000-4000-8000-000000000001", "sketch", is_claimable=True)


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


async def test_each_change_wakes_one_claim_that_can_take_it() -> None:
    notifier = Notifier()
    with (
        notifier.subscribe_to_work(["other"]) as other,
        notifier.subscribe_to_work(["sketch"]) as first,
        notifier.subscribe_to_work(["sketch", "other"]) as second,
        notifier.subscribe_to_work(["sketch"]) as third,
    ):
        events = other, first, second, third
        notifier.publish([NEW])
        assert [event.is_set() for event in events] == [False, True, False, False]
        notifier.publish([NEW])
        assert [event.is_set() for event in events] == [False, True, True, False]
        notifier.wake_claimers(["sketch"])
        assert [event.is_set() for event in events] == [False, True, True, True]


async def test_claim_that_leaves_without_looking_wakes_another() -> None:
    notifier = Notifier()
    with notifier.subscribe_to_work(["sketch"]) as last, notifier.subscribe_to_work(["other"]) as other:
        with notifier.subscribe_to_work(["sketch"]):
            notifier.publish([NEW, NEW])  # The first two that wait.
            assert last.is_set()
            assert last.take() == {"sketch"}
        assert last.is_set()
        assert not other.is_set()


async def test_claim_that_has_looked_wakes_no_other() -> None:
    notifier = Notifier()
    with notifier.subscribe_to_work(["sketch"]) as first:
        notifier.publish([NEW])
        first.take()
        with notifier.subscribe_to_work(["sketch"]) as second:
            assert not second.is_set()
    assert not second.is_set()
