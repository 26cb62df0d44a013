"""Verifies the token of an open call again and again, and ends the call once it has been revoked or has expired."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from dgx_music.errors import ServiceError, Unauthenticated

RECHECK_SECONDS = 2.0
"""Interval of the checks. With what the cache of tokens adds, a stream ends within 5 s."""

Result = TypeVar("Result")


class TokenRecheck:
    """While the block runs, `verify` is called again and again; once it raises Unauthenticated, so does `run`."""

    def __init__(self, verify: Callable[[], Awaitable[object]], interval_seconds: float = RECHECK_SECONDS) -> None:
        self._verify, self._interval_seconds = verify, interval_seconds
        self._error: Unauthenticated | None = None
        self._scope: asyncio.Timeout | None = None

    async def __aenter__(self) -> TokenRecheck:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()

    async def run(self, step: Callable[[], Awaitable[Result]]) -> Result:
        """Returns the result of `step`, which is cancelled as soon as the token is not valid any more."""
        if self._error is not None:
            raise self._error
        try:
            async with asyncio.timeout(None) as self._scope:
                return await step()
        except TimeoutError:
            if self._error is None:  # It is the step's own.
                raise
            raise self._error from None
        finally:
            self._scope = None

    async def _watch(self) -> None:
        while self._error is None:
            await asyncio.sleep(self._interval_seconds)
            try:
                async with asyncio.timeout(self._interval_seconds):
                    await self._verify()
            except Unauthenticated as error:
                self._error = error
            except (ServiceError, TimeoutError):
                continue  # It can't be verified now, e.g. while storage restarts: that revokes nothing.
        if self._scope is not None:
            self._scope.reschedule(0)
