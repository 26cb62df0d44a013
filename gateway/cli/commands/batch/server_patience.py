"""How a batch waits for a server that is full, or was lost and comes back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import grpc
import grpc.aio

from dgx_music.error_status import read_error_details
from gateway.cli.display.batch_progress import format_time
from gateway.cli.session.command_errors import is_lost

RECONNECT_SECONDS = 60.0
"""How long a lost server is waited for; one that is restarted is back in a few seconds."""
PAUSE_SECONDS = 1.0
"""The longest pause between two attempts to reach it."""
T = TypeVar("T")


class ServerPatience:
    """Shared by all jobs of a batch. Times are those of the event loop."""

    def __init__(self, print_notice: Callable[[str], None]) -> None:
        self._print_notice = print_notice
        self._closed_until = 0.0
        """When the server, whose queue is full, is to be asked again."""
        self._lost_at: float | None = None

    async def when_admitted(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Makes the call as soon as the server, which may be full, says that it takes it."""
        loop = asyncio.get_running_loop()
        while True:
            if (delay := self._closed_until - loop.time()) > 0:
                await asyncio.sleep(delay * random.uniform(1.0, 1.2))
                continue
            try:
                response = await call()
            except grpc.aio.AioRpcError as error:
                details = read_error_details(error)
                if details.code is not grpc.StatusCode.RESOURCE_EXHAUSTED or details.retry_after_seconds is None:
                    raise
                if self._closed_until < loop.time():
                    wait = format_time(details.retry_after_seconds)
                    self._print_notice(f"{details.message}; asking again in {wait}")
                self._closed_until = max(self._closed_until, loop.time() + details.retry_after_seconds)
            else:
                self._lost_at = None
                return response

    async def despite_restarts(self, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Does it again, which must be safe, as long as the server is lost, but not for ever."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await make()
            except grpc.aio.AioRpcError as error:
                if not is_lost(error):
                    raise
                if self._lost_at is None:
                    self._lost_at = loop.time()
                    self._print_notice("lost the connection to the server; waiting for it to come back")
                elif loop.time() > self._lost_at + RECONNECT_SECONDS:
                    raise
            await asyncio.sleep(PAUSE_SECONDS * random.uniform(0.5, 1.0))
