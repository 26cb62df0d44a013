"""Coroutines that run in a thread of their own for others."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import pytest

from dgx_music.client.blocking.loop_thread import LoopThread
from dgx_music.errors import Cancelled

NAME = contextvars.ContextVar("NAME", default="nobody")


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    async def nothing() -> None:
        pass

    thread = LoopThread(nothing)
    yield thread
    thread.close()


def test_results_exceptions_and_context_come_through(thread: LoopThread) -> None:
    async def read() -> tuple[str, bool]:
        return NAME.get(), threading.current_thread() is threading.main_thread()

    async def fail() -> None:
        raise KeyError("x")

    NAME.set("somebody")
    assert thread.run(read()) == ("somebody", False)
    with pytest.raises(KeyError):
        thread.run(fail())


def test_iteration_ends_with_the_source(thread: LoopThread) -> None:
    async def count() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    assert list(thread.iterate(count())) == [0, 1, 2]


def test_exception_in_the_caller_cancels_the_work_and_waits_for_its_end(thread: LoopThread) -> None:
    events: SimpleQueue[str] = SimpleQueue()
    cleaned_up = threading.Event()

    async def work() -> None:
        events.put("started")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            cleaned_up.set()

    def fail(event: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        thread.run(work(), events, fail)
    assert cleaned_up.is_set()


def test_close_cancels_what_runs_before_it_closes_the_rest() -> None:
    order: list[str] = []
    started = threading.Event()

    async def on_close() -> None:
        order.append("closed")

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            order.append("cancelled")

    thread = LoopThread(on_close)
    with ThreadPoolExecutor(1) as callers:
        call = callers.submit(thread.run, work())
        assert started.wait(30)
        thread.close()
        with pytest.raises(Cancelled):
            call.result()
    thread.close()
    assert order == ["cancelled", "closed"]
    with pytest.raises(RuntimeError, match="closed"):
        thread.run(on_close())


def test_call_from_its_own_loop_is_refused_instead_of_waiting_forever(thread: LoopThread) -> None:
    async def inner() -> None:
        pass

    async def outer() -> None:
        thread.run(inner())

    with pytest.raises(RuntimeError, match="use AsyncClient there"):
        thread.run(outer())
