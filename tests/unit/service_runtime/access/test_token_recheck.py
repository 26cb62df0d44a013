"""When a stream is ended, and when it is not."""

from __future__ import annotations

import asyncio

import pytest

from dgx_music.errors import Unauthenticated, Unavailable
from service_runtime.access.token_recheck import RECHECK_SECONDS, TokenRecheck
from service_runtime.access.token_verifier import VALID_SECONDS

PROMISED_SECONDS = 5.0
INTERVAL_SECONDS = 0.001
REVOKED = Unauthenticated("revoked", reason="TOKEN_INVALID")


class Verifier:
    """Raises what is next in the list, and then goes on without errors."""

    def __init__(self, *problems: Exception) -> None:
        self.problems = list(problems)
        self.asked = asyncio.Event()

    async def verify(self) -> None:
        if self.problems:
            raise self.problems.pop(0)
        self.asked.set()


def test_a_stream_ends_in_time() -> None:
    assert RECHECK_SECONDS + VALID_SECONDS < PROMISED_SECONDS


async def test_waiting_step_is_cancelled() -> None:
    cancelled = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with TokenRecheck(Verifier(REVOKED).verify, INTERVAL_SECONDS) as call:
        with pytest.raises(Unauthenticated, match="revoked"):
            await call.run(wait)
    assert cancelled.is_set()


async def test_next_step_after_a_slow_reader_is_not_run() -> None:
    async with TokenRecheck(Verifier(REVOKED).verify, INTERVAL_SECONDS) as call:
        await asyncio.wait_for(asyncio.shield(call._task), 60)  # Outside of a step, as while a response is being sent.
        with pytest.raises(Unauthenticated):
            await call.run(lambda: pytest.fail("the step was run"))


async def test_verifier_that_is_away_ends_nothing() -> None:
    verifier = Verifier(Unavailable("away", reason="AWAY"), Unavailable("away", reason="AWAY"))
    async with TokenRecheck(verifier.verify, INTERVAL_SECONDS) as call:
        assert await call.run(lambda: asyncio.wait_for(verifier.asked.wait(), 60)) is True
        assert verifier.problems == []


async def test_verifier_that_hangs_is_asked_again() -> None:
    asked = 0

    async def verify() -> None:
        nonlocal asked
        asked += 1
        if asked < 3:
            await asyncio.Event().wait()
        raise REVOKED

    async with TokenRecheck(verify, INTERVAL_SECONDS) as call:
        with pytest.raises(Unauthenticated, match="revoked"):
            await asyncio.wait_for(call.run(asyncio.Event().wait), 60)


async def test_timeout_of_the_step_itself_is_passed_on() -> None:
    async def fail() -> None:
        raise TimeoutError("the step's own")

    async with TokenRecheck(Verifier().verify, 60) as call:
        with pytest.raises(TimeoutError, match="the step's own"):
            await call.run(fail)


async def test_cancellation_of_the_call_is_passed_on() -> None:
    async def serve() -> None:
        async with TokenRecheck(Verifier().verify, 60) as call:
            await call.run(asyncio.Event().wait)

    task = asyncio.create_task(serve())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
