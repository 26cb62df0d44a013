"""Work that ends with its caller, or with the server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.web.connected_callers import run_while_connected
from gateway.web.request_log import CutOff


class Caller:
    """Who waits for an answer until it leaves."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}


class Work:
    """Work without an end."""

    def __init__(self) -> None:
        self.began, self.was_cancelled = asyncio.Event(), False

    async def run(self) -> None:
        self.began.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise


async def test_work_ends_when_its_caller_leaves() -> None:
    caller, work = Caller(), Work()
    running = asyncio.create_task(run_while_connected(work.run(), caller.receive))
    await work.began.wait()
    caller.left.set()
    await running
    assert work.was_cancelled


async def test_work_is_cut_off_when_the_server_stops() -> None:
    work, stopping = Work(), asyncio.Event()
    running = asyncio.create_task(run_while_connected(work.run(), Caller().receive, stopping))
    await work.began.wait()
    stopping.set()
    with pytest.raises(CutOff):
        await running
    assert work.was_cancelled


async def test_error_of_the_work_is_raised() -> None:
    async def fail() -> None:
        raise ValueError("a")

    with pytest.raises(ValueError, match="a"):
        await run_while_connected(fail(), Caller().receive, asyncio.Event())
