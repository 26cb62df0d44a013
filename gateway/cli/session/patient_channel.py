"""A channel that waits while the server is too busy for a call, as long as the server says, and that goes on at another
server when one of several is lost."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio

from dgx_music.error_status import read_error_details
from dgx_music.wrapping_channel import Call, WrappingChannel
from gateway.cli.session.command_errors import is_lost

BUSY_REASONS = ("SERVER_BUSY", "RATE_LIMIT")
"""Reasons of a refusal before the server has done anything, so that any call can be repeated."""
PATIENCE_SECONDS = 60.0
"""How long one call is repeated."""
QUIET_SECONDS = 2.0
"""A shorter wait is not worth a notice."""


FAILOVER_SECONDS = 20.0
"""How long a call that was lost is tried at the other servers."""
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.1, 1.0
"""Between such tries; each pause is twice as long as the one before."""
RESTARTABLE = "WatchGeneration"
"""The stream that may be made again after it has begun, because it starts with the state as it is now."""
REPEATABLE_METHODS = ("CreateGeneration", "BatchCreateGenerations", "StreamAudio", RESTARTABLE)
"""Methods, besides those that gRPC repeats by itself, whose calls may be made again after one that was lost: creations
have a request_id."""


class PatientChannel(WrappingChannel):
    """Repeats calls that the server refuses because it is busy. A call with a stream of requests can't be repeated.

    With `fails_over`, which is for several servers, it also repeats those of REPEATABLE_METHODS that are lost.
    """

    def __init__(
        self, channel: grpc.aio.Channel, print_notice: Callable[[str], None], *, fails_over: bool = False
    ) -> None:
        super().__init__(channel)
        self._print_notice, self._fails_over = print_notice, fails_over
        self._noted_until = 0.0

    def _wrap(
        self, bind: Callable[[grpc.aio.Channel], Call], method: str, request_streaming: bool, response_streaming: bool
    ) -> Call:
        call = bind(self._channel)
        if request_streaming:
            return call
        name = method.rpartition("/")[2]
        fails_over = self._fails_over and name in REPEATABLE_METHODS
        if response_streaming:
            return lambda *arguments, **options: _Stream(
                lambda: call(*arguments, **options),
                _Wait(self._note, fails_over=fails_over),
                is_restartable=name == RESTARTABLE,
            )

        async def repeat(*arguments: Any, **options: Any) -> Any:
            wait = _Wait(self._note, fails_over=fails_over)
            while True:
                try:
                    return await call(*arguments, **options)
                except grpc.aio.AioRpcError as error:
                    await wait.before_repeating(error)

        return repeat

    def _note(self, delay: float, problem: str) -> None:
        """Says why nothing happens, once for all calls that wait at the same time."""
        now = time.monotonic()
        if delay > QUIET_SECONDS and now > self._noted_until:
            self._print_notice(f"waiting {delay:.0f} s: {problem}")
        self._noted_until = max(self._noted_until, now + delay)


class _Stream:
    """A call with a stream of responses, as far as the command line uses it."""

    def __init__(self, start: Callable[[], Any], wait: _Wait, *, is_restartable: bool) -> None:
        self._start, self._wait, self._is_restartable = start, wait, is_restartable
        self._call = start()
        self._responses = self._receive()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._responses

    async def _receive(self) -> AsyncIterator[Any]:
        has_begun = False
        while True:
            try:
                async for response in self._call:
                    has_begun = True
                    self._wait.responded()
                    yield response
                return
            except grpc.aio.AioRpcError as error:
                if has_begun and not (self._is_restartable and self._wait.is_failover(error)):
                    raise
                await self._wait.before_repeating(error)
                self._call = self._start()

    def cancel(self) -> bool:
        return bool(self._call.cancel())


class _Wait:
    """The patience of one call."""

    def __init__(self, note: Callable[[float, str], None], *, fails_over: bool) -> None:
        self._note, self._fails_over = note, fails_over
        self._started_at = 0.0
        self.responded()

    def responded(self) -> None:
        """Records that there is a server."""
        self._lost_at, self._pause = 0.0, FIRST_PAUSE_SECONDS

    def is_failover(self, error: grpc.aio.AioRpcError) -> bool:
        """Returns whether another server may go on with the call."""
        is_away = error.code() is grpc.StatusCode.UNAVAILABLE
        return self._fails_over and (is_away or is_lost(error))

    async def before_repeating(self, error: grpc.aio.AioRpcError) -> None:
        """Waits as long as the error says. Raises it if it says nothing, or the patience is at its end."""
        details, now = read_error_details(error), time.monotonic()
        if self.is_failover(error):
            self._lost_at = self._lost_at or now
            if now > self._lost_at + FAILOVER_SECONDS:
                raise error
            await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))
            self._pause = min(2 * self._pause, MAX_PAUSE_SECONDS)
            return
        delay = details.retry_after_seconds
        self._started_at = self._started_at or now
        if delay is None or details.reason not in BUSY_REASONS or now + delay > self._started_at + PATIENCE_SECONDS:
            raise error
        self._note(delay, details.message)
        # Not all those that were refused at the same time come back at the same time.
        await asyncio.sleep(delay * random.uniform(1.0, 1.2))
