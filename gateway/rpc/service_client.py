"""A service behind the gateway: every call to it has a deadline, and says which service it was that did not answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Generic, TypeVar

import grpc
import grpc.aio

from dgx_music.channel import connect
from dgx_music.errors import Unavailable
from dgx_music.status import status_of
from service_runtime.rpc.client_stream import ClientStreamCall
from service_runtime.rpc.deadlines import time_left
from service_runtime.rpc.health_check import require_serving

UNARY_SECONDS = 30.0
"""Longest that a call with one answer may take."""
RENDER_SECONDS = 3600.0
"""Longest that a render may take: an hour's audio as MP3 takes minutes, and others may have to be made before."""
STREAM_SECONDS = 24 * 3600.0
"""Longest that a stream may take: more than the longest audio takes to be waited for and heard."""

Stub = TypeVar("Stub")
Request = TypeVar("Request")
Response = TypeVar("Response")


class Upstream(Generic[Stub]):
    """One service, dialled at `address`. `open` first; `close` last."""

    stub: Stub

    def __init__(self, full_name: str, address: str, build_stub: Callable[[grpc.aio.Channel], Stub]) -> None:
        self._full_name, self._address, self._build_stub = full_name, address, build_stub

    def open(self) -> None:
        """Makes the channel, on the running event loop; it connects at the first call."""
        self._channel = connect(self._address)
        self.stub = self._build_stub(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    async def ask(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        seconds: float = UNARY_SECONDS,
    ) -> Response:
        """One request, one answer in so many seconds. Raises Unavailable where nobody answers, else AioRpcError."""
        try:
            return await method(request, timeout=time_left(seconds))
        except grpc.aio.AioRpcError as error:
            raise self._explain(error) from error

    async def stream(
        self, method: grpc.aio.UnaryStreamMultiCallable[Request, Response], request: Request
    ) -> AsyncGenerator[Response, None]:
        """One request, a stream of answers. Reads a message when it is asked for one, and never ahead; closing it
        cancels the call. Raises as `ask` does."""
        call = method(request, timeout=time_left(STREAM_SECONDS))
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise self._explain(error) from error
        finally:
            call.cancel()

    async def send(
        self, method: grpc.aio.StreamUnaryMultiCallable[Request, Response], requests: AsyncIterator[Request]
    ) -> Response:
        """A stream of requests, one answer. Takes a request when the one before is on its way, and never ahead; ended
        early, it cancels the call. Raises as `ask` does."""
        sending = ClientStreamCall(method, time_left(STREAM_SECONDS))
        try:
            async for request in requests:
                await sending.write(request)
            return await sending.finish()
        except grpc.aio.AioRpcError as error:
            raise self._explain(error) from error
        finally:
            sending.cancel()

    async def check(self) -> None:
        """Raises Unavailable where the service does not answer, or says that it is not SERVING."""
        await require_serving(self._channel, self._address, self._full_name)

    def _explain(self, error: grpc.aio.AioRpcError) -> Exception:
        if error.code() is grpc.StatusCode.UNAVAILABLE and status_of(error) is None:
            return Unavailable(
                f"{self._full_name} does not answer at {self._address}: {error.details() or 'no connection'}",
                reason="SERVICE_UNAVAILABLE",
                metadata={"service": self._full_name, "address": self._address},
                retry_after_seconds=1.0,
            )
        return error
