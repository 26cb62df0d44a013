"""A client-streaming call that reports the status with which the server ended it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

MASKED_DETAILS = "Internal error from Core"
"""The details with which grpcio overwrites the server's status."""
STATUS_WAIT_SECONDS = 2.0
"""How long after a failed write the server's status may still arrive, on a busy machine."""
STATUS_POLL_SECONDS = 0.02

Request = TypeVar("Request")
Response = TypeVar("Response")


class ClientStreamCall(Generic[Request, Response]):
    """Sends requests one at a time, with flow control. Its methods raise AioRpcError with the server's status.

    If a server ends a call while the client writes, grpcio reports "INTERNAL: Internal error from Core" instead of the
    status that has arrived or arrives a moment later (grpc/grpc#36066, open as of 1.85). Therefore the status is
    recorded when the call is done.
    """

    def __init__(self, method: grpc.aio.StreamUnaryMultiCallable[Request, Response], timeout_seconds: float) -> None:
        self._call = method(timeout=timeout_seconds)
        self._status: grpc.aio.AioRpcError | None = None
        self._call.add_done_callback(lambda _: self._record_status())

    async def write(self, request: Request) -> None:
        """Sends one request; returns when the next may be sent."""
        try:
            await self._call.write(request)
        except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
            raise await self._final_status() from None

    async def finish(self) -> Response:
        """Ends the request stream and returns the response."""
        try:
            await self._call.done_writing()
            return await self._call
        except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
            raise await self._final_status() from None

    async def initial_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """Returns what the server sends before its response; nothing if the call fails before."""
        return tuple(await self._call.initial_metadata())

    def cancel(self) -> None:
        """Cancels the call, so that the server discards what it received. Does nothing after the response."""
        self._call.cancel()

    async def _final_status(self) -> grpc.aio.AioRpcError:
        for _ in range(round(STATUS_WAIT_SECONDS / STATUS_POLL_SECONDS)):
            if self._status is not None:
                break
            await asyncio.sleep(STATUS_POLL_SECONDS)
            self._record_status()
        return self._status or _rpc_error(grpc.StatusCode.UNAVAILABLE, "the server ended the call without a status")

    def _record_status(self) -> None:
        details = _result_of(self._call.details())
        if self._status is None and details != MASKED_DETAILS:
            self._status = _rpc_error(
                _result_of(self._call.code()), details, _result_of(self._call.trailing_metadata())
            )


def _result_of(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Returns the result of a coroutine that never suspends, as those of a call that is done."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the call is not done")


def _rpc_error(code: grpc.StatusCode, details: str, trailing_metadata: Any = None) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing_metadata or grpc.aio.Metadata(), details)
