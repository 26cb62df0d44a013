"""One call that streams requests and has one answer, and what really ended it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

GRPCIO_MASK = "Internal error from Core"
STATUS_SECONDS = 0.05
"""How long after a failed write the server's status may still come in."""

Request = TypeVar("Request")
Response = TypeVar("Response")


class ClientStreamCall(Generic[Request, Response]):
    """Sends requests one by one, each when the one before is on its way. Raises AioRpcError with the server's status.

    When a server ends a call while the client writes, grpcio puts "INTERNAL: Internal error from Core" over the status
    that came, or that comes a moment later (grpc/grpc#36066, open as of 1.85). So the status is noted when it comes.
    """

    def __init__(self, method: grpc.aio.StreamUnaryMultiCallable[Request, Response], timeout_seconds: float) -> None:
        self._call = method(timeout=timeout_seconds)
        self._status: grpc.aio.AioRpcError | None = None
        self._call.add_done_callback(lambda _: self._note())

    async def write(self, request: Request) -> None:
        try:
            await self._call.write(request)
        except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
            raise await self._what_ended_it() from None

    async def finish(self) -> Response:
        """Says that there is no more, and waits for the answer."""
        try:
            await self._call.done_writing()
            return await self._call
        except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
            raise await self._what_ended_it() from None

    def cancel(self) -> None:
        """Has the server drop what it got; nothing after the answer."""
        self._call.cancel()

    async def _what_ended_it(self) -> grpc.aio.AioRpcError:
        if self._status is None:
            await asyncio.sleep(STATUS_SECONDS)
            self._note()
        return self._status or _failure(grpc.StatusCode.UNAVAILABLE, "the server ended the call without a status")

    def _note(self) -> None:
        details = _now(self._call.details())
        if self._status is None and details != GRPCIO_MASK:
            self._status = _failure(_now(self._call.code()), details, _now(self._call.trailing_metadata()))


def _now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that has nothing to wait for: a call that has ended knows its status."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the call has not ended")


def _failure(code: grpc.StatusCode, details: str, trailing_metadata: Any = None) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing_metadata or grpc.aio.Metadata(), details)
