"""Calls of the gateway that raise `dgx_music.errors`, with the names of the contract's fields."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TypeVar

import grpc
import grpc.aio

from dgx_music.error_status import status_of, to_exception
from dgx_music.errors import ConnectionLost, ServiceError
from dgx_music.response_stream import read_stream

CALL_SECONDS = 30.0
"""Deadline of a call that takes no longer with more audio."""
WORK_SECONDS = 3600.0
"""Deadline of a call that reads or writes audio: an hour of it takes minutes, and others may be before it."""
STREAM_SECONDS = 24 * 3600.0
"""Deadline of a stream, which may wait for the longest audio and then play it in real time."""

Request = TypeVar("Request")
Response = TypeVar("Response")

_BROKEN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)
"""How gRPC itself reports a connection that could not be made or broke."""


async def call(
    method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request, timeout_seconds: float = CALL_SECONDS
) -> Response:
    """Sends a request and returns the response. Raises ServiceError."""
    try:
        return await method(request, timeout=timeout_seconds)
    except grpc.aio.AioRpcError as error:
        raise translate(error) from error


async def stream(
    method: grpc.aio.UnaryStreamMultiCallable[Request, Response], request: Request
) -> AsyncGenerator[Response, None]:
    """Sends a request and yields the responses. Closing the generator cancels the call. Raises ServiceError."""
    responses = method(request, timeout=STREAM_SECONDS)
    try:
        async for response in read_stream(responses):
            yield response
    except grpc.aio.AioRpcError as error:
        raise translate(error) from error
    finally:
        responses.cancel()


def translate(error: grpc.aio.AioRpcError) -> ServiceError:
    """Returns the error that the gateway raised; ConnectionLost if none answers."""
    if status_of(error) is None and error.code() in _BROKEN:
        return ConnectionLost(
            "the gateway behind the Studio does not answer; it may be restarting, or start it with `dgx-music serve`",
            reason="CONNECTION_LOST",
            retry_after_seconds=1.0,
        )
    return to_exception(error)
