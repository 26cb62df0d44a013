"""What surrounds every call that a server serves: the deadline, the error map, the log line, the metrics."""

from __future__ import annotations

import asyncio
import inspect
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio
from grpc_status import rpc_status

from dgx_music.errors import ServiceError
from dgx_music.status import status_of, to_status
from service_runtime.observability.logging import get_logger
from service_runtime.observability.metrics import Observer
from service_runtime.rpc import deadlines

log = get_logger(__name__)

if TYPE_CHECKING:  # Generic for the type checker only.
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]

KINDS: dict[tuple[bool, bool], tuple[str, Callable[..., Handler]]] = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}
"""(request streams, response streams) → where a handler keeps its behaviour, and how one is built."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every method of every servicer, unary or stream."""

    def __init__(self, observer: Observer | None = None) -> None:
        self._observer = observer

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None:  # No such method: gRPC answers UNIMPLEMENTED by itself.
            return handler
        method = handler_call_details.method
        kind, build_handler = KINDS[handler.request_streaming, handler.response_streaming]
        behaviour = getattr(handler, kind)
        # A streaming method is an async generator, or a coroutine that writes to the context itself (health's Watch).
        wrap = self._stream if inspect.isasyncgenfunction(behaviour) else self._coroutine
        return build_handler(wrap(method, behaviour), handler.request_deserializer, handler.response_serializer)

    def _coroutine(self, method: str, behaviour: Any) -> Any:
        async def call(request: Any, context: Context) -> Any:
            served = _Served(method, context, self._observer)
            try:
                return await behaviour(request, context)
            except BaseException as error:
                await served.fail(error)
            finally:
                served.ended()

        return call

    def _stream(self, method: str, behaviour: Any) -> Any:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            served = _Served(method, context, self._observer)
            try:
                # Closed here and not by the garbage collector: a caller that goes away frees what it held at once.
                async with aclosing(behaviour(request, context)) as responses:
                    async for response in responses:
                        yield response
            except BaseException as error:
                await served.fail(error)
            finally:
                served.ended()

        return call


class _Served:
    """One call, from its first moment to its status."""

    def __init__(self, method: str, context: Context, observer: Observer | None) -> None:
        deadlines.set_deadline(context.time_remaining())
        self._method, self._context, self._observer = method, context, observer
        self._began = time.monotonic()
        self._code = "OK"

    async def fail(self, error: BaseException) -> NoReturn:
        """Sends what the error means and raises. Cancellation is passed on as it is."""
        match error:
            case asyncio.CancelledError() | GeneratorExit():
                self._code = "CANCELLED"
                raise error
            case grpc.aio.AbortError():
                self._code = _code_name(self._context.code())
                raise error
            case ServiceError():
                self._code = error.code
                log.info("refused", method=self._method, code=error.code, reason=error.reason, error=error.message)
                await self._context.abort_with_status(rpc_status.to_status(to_status(error)))
            case grpc.aio.AioRpcError():
                # What another service refused is refused in its words.
                self._code = error.code().name
                log.info("refused downstream", method=self._method, code=self._code, error=error.details())
                status = status_of(error)
                if status is not None:
                    await self._context.abort_with_status(rpc_status.to_status(status))
                await self._context.abort(error.code(), error.details() or "")
            case _:
                self._code = "INTERNAL"
                error_id = uuid.uuid4().hex[:12]
                log.error("unforeseen error", method=self._method, error_id=error_id, exc_info=error)
                internal = ServiceError(
                    f"an unforeseen error; the server's log has it as error_id {error_id}",
                    reason="INTERNAL",
                    metadata={"error_id": error_id},
                )
                await self._context.abort_with_status(rpc_status.to_status(to_status(internal)))
        raise AssertionError("abort raises")

    def ended(self) -> None:
        seconds = time.monotonic() - self._began
        log.debug("served", method=self._method, code=self._code, seconds=round(seconds, 6))
        if self._observer is not None:
            self._observer.call_ended(self._method, self._code, seconds)


def _code_name(code: Any) -> str:
    """The name of what `ServicerContext.code()` gives: a StatusCode, or its number."""
    for known in grpc.StatusCode:
        if code in (known, known.value[0]):
            return known.name
    return "UNKNOWN"
