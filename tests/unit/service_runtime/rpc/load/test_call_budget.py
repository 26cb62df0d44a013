"""Who gets a place in a budget, who waits for it, and who is refused, without gRPC."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from dgx_music.errors import ResourceExhausted, ServiceError
from service_runtime.rpc.load.call_budget import MAX_RETRY_SECONDS, MIN_RETRY_SECONDS, Budget
from tests.support.tone_model import ManualClock


class Line:
    """Calls that want a place in a budget, each a task that keeps its place until it is told to end."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._ends: dict[str, asyncio.Event] = {}
        self.begun: list[str] = []

    async def add(self, name: str, client: str = "", seconds_left: float | None = None) -> asyncio.Task[None]:
        """Returns when the call has begun, waits or has been refused."""
        self._ends[name] = asyncio.Event()
        task = asyncio.create_task(self._call(name, client, seconds_left))
        await settle()
        return task

    async def _call(self, name: str, client: str, seconds_left: float | None) -> None:
        async with self._budget.occupy(client, seconds_left):
            self.begun.append(name)
            await self._ends[name].wait()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def error_of(call: asyncio.Task[None]) -> ServiceError:
    assert call.done()
    error = call.exception()
    assert isinstance(error, ServiceError)
    return error


async def test_call_without_a_place_waits_and_what_exceeds_the_queue_is_refused_with_a_time_to_retry() -> None:
    budget = Budget("a.Service", "calls", 1, 2)
    line = Line(budget)
    calls = [await line.add("one"), await line.add("two", "b"), await line.add("three", "c")]
    error = error_of(await line.add("four", "d"))
    assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "SERVER_BUSY")
    assert error.metadata == {"service": "a.Service", "kind": "calls", "limit": "1"}
    assert error.retry_after_seconds is not None
    with pytest.raises(ResourceExhausted):
        budget.check()
    for name in ("one", "two", "three"):
        assert line.begun[-1] == name
        await line.end(name)
    await asyncio.gather(*calls)
    budget.check()


async def test_call_that_fails_frees_its_place() -> None:
    budget = Budget("a.Service", "streams", 1, 0)
    with pytest.raises(KeyError):
        async with budget.occupy():
            raise KeyError
    async with budget.occupy():
        with pytest.raises(ResourceExhausted):
            async with budget.occupy():
                pass


async def test_clients_take_turns_and_each_is_served_in_order() -> None:
    line = Line(Budget("a.Service", "calls", 1, 100))
    calls = [await line.add("first")]
    for name in ("a1", "a2", "a3", "b1", "c1", "b2"):
        calls.append(await line.add(name, client=name[0]))
    for name in ("first", "a1", "b1", "c1", "a2", "b2", "a3"):
        assert line.begun[-1] == name
        await line.end(name)
    await asyncio.gather(*calls)


async def test_crowd_of_one_client_leaves_room_in_the_queue_for_others() -> None:
    line = Line(Budget("a.Service", "calls", 1, 8))
    crowd = [await line.add(str(number), "crowd") for number in range(10)]
    assert [call.done() for call in crowd] == [False] * 5 + [True] * 5
    assert error_of(crowd[-1]).reason == "SERVER_BUSY"
    await line.add("other", "other")
    for name in ("0", "1"):
        await line.end(name)
    assert line.begun == ["0", "1", "other"]
    for call in crowd[:5]:
        call.cancel()


async def test_call_that_is_cancelled_while_it_waits_leaves_the_queue() -> None:
    line = Line(Budget("a.Service", "calls", 1, 4))
    calls = [await line.add(name, client) for name, client in (("1", ""), ("2", "a"), ("3", "b"), ("4", "b"))]
    for call in (calls[1], calls[2]):
        call.cancel()
    await settle()
    calls.append(await line.add("b again", "b"))
    assert not calls[-1].done()  # There is room for two calls of a client.
    await line.end("1")
    assert line.begun == ["1", "4"]
    calls[-1].cancel()
    await line.end("4")
    await line.add("5")
    assert line.begun == ["1", "4", "5"]
    await line.end("5")


async def test_call_that_is_cancelled_as_its_turn_comes_passes_it_on() -> None:
    budget = Budget("a.Service", "calls", 1, 100)
    line = Line(budget)
    async with budget.occupy():
        cancelled = await line.add("1")
        await line.add("2")
    cancelled.cancel()
    await settle()
    assert line.begun == ["2"]
    await line.end("2")


async def test_wait_that_would_be_too_long_or_last_beyond_the_deadline_is_refused() -> None:
    clock = ManualClock()
    budget = Budget("a.Service", "calls", 1, 100, clock)
    line = Line(budget)
    for number in range(200):  # Of 0.4 s each; another is always there, so that the server is not idle in between.
        await line.add(str(number))
        if number:
            clock.now += 0.4
            await line.end(str(number - 1))
    assert error_of(await line.add("late", seconds_left=0.3)).reason == "SERVER_BUSY"
    fits = [await line.add("fits", seconds_left=0.5), await line.add("also", seconds_left=60)]
    assert not any(call.done() for call in fits)
    assert error_of(await line.add("third", seconds_left=60)).reason == "SERVER_BUSY"
    assert not (await line.add("other", client="other")).done()
    clock.now += 3.0  # No place became free for so long.
    with pytest.raises(ResourceExhausted):
        budget.check()


async def test_idle_server_has_forgotten_how_slow_it_was() -> None:
    clock = ManualClock()
    line = Line(Budget("a.Service", "calls", 1, 100, clock))
    for number in range(20):
        await line.add(f"slow {number}")
        clock.now += 60.0
        await line.end(f"slow {number}")
    await line.add("one")
    assert not (await line.add("two")).done()
    await line.end("one")
    await line.end("two")


async def test_calls_that_wait_when_the_server_shuts_down_are_told_so() -> None:
    budget = Budget("a.Service", "calls", 1, 100)
    line = Line(budget)
    calls = [await line.add(name) for name in "abc"]
    calls[2].cancel()
    budget.close()
    await settle()
    assert (error_of(calls[1]).code, error_of(calls[1]).reason) == ("UNAVAILABLE", "SHUTTING_DOWN")
    assert error_of(await line.add("d")).reason == "SHUTTING_DOWN"
    await line.end("a")
    await calls[0]


def refuse(budget: Budget, count: int) -> list[float]:
    """Returns what so many refused callers are told to wait."""
    waits = []
    for _ in range(count):
        with pytest.raises(ResourceExhausted) as raised:
            budget.check()
        assert raised.value.retry_after_seconds is not None
        waits.append(raised.value.retry_after_seconds)
    return waits


async def test_refused_callers_are_told_to_come_back_one_after_another_as_fast_as_calls_are_served() -> None:
    clock = ManualClock()
    budget = Budget("a.Service", "calls", 4, 0, clock)
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(budget.occupy())
        for _ in range(200):  # Of 2 s each, so that a place is free every half second.
            async with budget.occupy():
                clock.now += 2.0
        await stack.enter_async_context(budget.occupy())
        assert refuse(budget, 4) == pytest.approx([MIN_RETRY_SECONDS + n * 0.5 for n in (1, 2, 3, 4)], abs=0.02)
        clock.now += 2.0
        assert refuse(budget, 1) == pytest.approx([MIN_RETRY_SECONDS + 0.5], abs=0.02)
        assert max(refuse(budget, 500)) == MAX_RETRY_SECONDS


async def test_one_client_leaves_an_eighth_of_the_streams_to_others() -> None:
    line = Line(Budget("a.Service", "streams", 16, 0))
    crowd = [await line.add(f"a{number}", "a") for number in range(15)]
    assert [call.done() for call in crowd] == [False] * 14 + [True]
    error = error_of(crowd[-1])
    assert (error.reason, error.retry_after_seconds is not None) == ("SERVER_BUSY", True)
    assert "one client may have 14 streams at a time" in error.message
    others = [await line.add(f"b{number}", "b") for number in range(2)]
    assert not any(call.done() for call in others)
    assert "it serves 16 streams at a time" in error_of(await line.add("c", "c")).message
    await line.end("a0")
    crowd.append(await line.add("a again", "a"))
    assert not crowd[-1].done()
    for call in (*crowd[:14], *others, crowd[-1]):
        call.cancel()
