"""A client of one service behind the gateway: every call has a deadline, and a failed connection names the service."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, TypeVar

import grpc
import grpc.aio

from dgx_music.error_status import status_of
from dgx_music.errors import Unavailable
from dgx_music.response_stream import read_stream
from gateway.timeouts import CALL_TIMEOUT_SECONDS, STREAM_TIMEOUT_SECONDS
from service_runtime.access.service_channel import connect_service
from service_runtime.observability.logging import get_logger
from service_runtime.rpc.client_stream import ClientStreamCall
from service_runtime.rpc.connection_diagnosis import explain_unreachable
from service_runtime.rpc.deadlines import time_left
from service_runtime.rpc.health.health_check import require_serving
from service_runtime.settings import Settings

log = get_logger(__name__)

CONNECTION_LOST_CODES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)

Stub = TypeVar("Stub")
Request = TypeVar("Request")
Response = TypeVar("Response")


class ServiceClient(Generic[Stub]):
    """A client of the service `full_name` at `address`. Call `open` before any other method and `close` at the end.

    Its calls show by the settings' service token or certificates that they are a service's.

    Every `call_…` method raises Unavailable if the service can't be reached, and AioRpcError for any other failure.
    """

    stub: Stub

    def __init__(
        self,
        full_name: str,
        address: str,
        build_stub: Callable[[grpc.aio.Channel], Stub],
        settings: Settings,
        *,
        address_setting: str = "",
    ) -> None:
        """`address_setting` is where the address comes from, in words, unless it is the gateway's own setting."""
        self._full_name, self._address, self._build_stub = full_name, address, build_stub
        self._settings, self._name = settings, full_name.split(".")[1]
        self._address_setting = address_setting or f"the gateway's DGX_MUSIC_{self._name.upper()}_ADDRESS"

    def open(self) -> None:
        """Creates the channel on the running event loop. It connects at the first call.

        Raises FailedPrecondition, which names the setting, if a secret or a certificate can't be used.
        """
        self._credentials = self._settings.service_credentials()
        self._channel = connect_service(self._address, self._settings)
        self.stub = self._build_stub(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    async def call_unary(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout_seconds: float = CALL_TIMEOUT_SECONDS,
    ) -> Response:
        """Sends one request and returns the response."""
        try:
            return await method(request, timeout=time_left(timeout_seconds))
        except grpc.aio.AioRpcError as error:
            raise await self._translate_error(error) from error

    async def call_server_stream(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        watch: Callable[[grpc.aio.Call], AbstractContextManager[None]] = lambda _: nullcontext(),
    ) -> AsyncGenerator[Response, None]:
        """Sends one request and yields the responses.

        A response is read only when the caller asks for it, never ahead. Closing the generator cancels the call.
        `watch` gets the call, and may cancel it while its context lasts: the generator then raises CancelledError.
        """
        call = method(request, timeout=time_left(STREAM_TIMEOUT_SECONDS))
        try:
            with watch(call):
                async for response in read_stream(call):
                    yield response
        except grpc.aio.AioRpcError as error:
            raise await self._translate_error(error) from error
        finally:
            call.cancel()

    async def call_client_stream(
        self, method: grpc.aio.StreamUnaryMultiCallable[Request, Response], requests: AsyncIterator[Request]
    ) -> Response:
        """Sends a stream of requests and returns the response.

        A request is read from `requests` only after the previous one was sent, never ahead. The call is cancelled if
        this ends early.
        """
        call = ClientStreamCall(method, time_left(STREAM_TIMEOUT_SECONDS))
        try:
            async for request in requests:
                await call.write(request)
            return await call.finish()
        except grpc.aio.AioRpcError as error:
            raise await self._translate_error(error) from error
        finally:
            call.cancel()

    async def check(self) -> None:
        """Raises Unavailable if the service does not answer or does not report SERVING."""
        await require_serving(self._channel, self._address, self._full_name)

    async def _translate_error(self, error: grpc.aio.AioRpcError) -> Exception:
        """Returns Unavailable with what is at the service's address if the connection failed, or if the service ended
        the call because it stops, else `error` itself."""
        if error.code() not in CONNECTION_LOST_CODES or status_of(error) is not None:
            return error
        log.info("service_unreachable", service=self._full_name, address=self._address, error=error.details())
        return Unavailable(
            f"{self._full_name} does not answer: {await explain_unreachable(self._address, self._credentials)}; start "
            f"`dgx-music serve {self._name}` there, or set {self._address_setting}",
            reason="SERVICE_UNAVAILABLE",
            metadata={"service": self._full_name, "address": self._address},
            retry_after_seconds=1.0,
        )
