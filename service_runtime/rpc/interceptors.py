"""What every call gets from the server: a deadline for downstream calls, error mapping, a log line and metrics."""

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

from dgx_music.error_status import read_error_details, status_of, to_status
from dgx_music.errors import ServiceError
from service_runtime.observability.call_metrics import MethodMetrics, method_labels
from service_runtime.observability.logging import bind_generation_id, get_logger
from service_runtime.observability.repeated_events import RepeatedEvents
from service_runtime.observability.tracing import end_call, start_call
from service_runtime.rpc import deadlines

log = get_logger(__name__)

_refusals = RepeatedEvents()
"""Of RESOURCE_EXHAUSTED: an overloaded server refuses thousands of calls a minute."""

if TYPE_CHECKING:  # Generic for the type checker only.
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]

HANDLER_KINDS: dict[tuple[bool, bool], tuple[str, Callable[..., Handler]]] = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}
"""(request is a stream, response is a stream) → the handler's attribute that holds the method, and its constructor."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every method of every servicer, unary or streaming.

    Another interceptor may raise a ServiceError instead of returning a handler: it refuses the call unread.
    """

    def __init__(self, *, is_measured: bool = False) -> None:
        """`is_measured` says whether the process shows metrics."""
        self._is_measured = is_measured
        self._metrics: dict[str, MethodMetrics] = {}
        """By the path of the method."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        try:
            handler = await continuation(handler_call_details)
        except ServiceError as error:
            handler = _refusing_handler(error)
        if handler is None:  # There is no such method; gRPC itself answers UNIMPLEMENTED.
            return handler
        name = handler_call_details.method
        attribute, build_handler = HANDLER_KINDS[handler.request_streaming, handler.response_streaming]
        method = getattr(handler, attribute)
        # A streaming method is an async generator, or a coroutine that writes to the context itself (health's Watch).
        wrap = self._wrap_generator if inspect.isasyncgenfunction(method) else self._wrap_coroutine
        deserialize, serialize = handler.request_deserializer, handler.response_serializer
        metrics = self._find_metrics(name, handler) if self._is_measured else None
        if metrics is not None:
            deserialize, serialize = metrics.count_received(deserialize), metrics.count_sent(serialize)
        return build_handler(wrap(name, method, metrics), deserialize, serialize)

    def _find_metrics(self, name: str, handler: Handler) -> MethodMetrics:
        metrics = self._metrics.get(name)
        if metrics is None:
            labels = method_labels(name, handler.request_streaming, handler.response_streaming)
            metrics = self._metrics[name] = MethodMetrics(labels)
        return metrics

    def _wrap_coroutine(self, name: str, method: Any, metrics: MethodMetrics | None) -> Any:
        async def call(request: Any, context: Context) -> Any:
            call_context = _CallContext(name, context, request, metrics)
            try:
                return await method(request, context)
            except BaseException as error:
                await call_context.abort(error)
            finally:
                call_context.record()

        return call

    def _wrap_generator(self, name: str, method: Any, metrics: MethodMetrics | None) -> Any:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            call_context = _CallContext(name, context, request, metrics)
            try:
                # Closed here and not by the garbage collector, so that a cancelled call releases its resources at once.
                async with aclosing(method(request, context)) as responses:
                    async for response in responses:
                        yield response
            except BaseException as error:
                await call_context.abort(error)
            finally:
                call_context.record()

        return call


class _CallContext:
    """One call from its start to its status."""

    def __init__(self, method: str, context: Context, request: Any, metrics: MethodMetrics | None) -> None:
        deadlines.set_deadline(context.time_remaining())
        self._method, self._context, self._metrics = method, context, metrics
        self._started_at = time.monotonic()
        self._code = "OK"
        bind_generation_id(request)
        self._span = start_call(method, context.invocation_metadata)
        if metrics is not None:
            metrics.count_started()

    async def abort(self, error: BaseException) -> NoReturn:
        """Ends the call with the status for the error, and raises. A cancellation is raised as it is."""
        match error:
            case asyncio.CancelledError() | GeneratorExit():
                self._code = "CANCELLED"
                raise error
            case grpc.aio.AbortError():
                self._code = _code_name(self._context.code())
                raise error
            case ServiceError():
                self._code = error.code
                if (fields := self._rejection_fields(error.reason, error.message)) is not None:
                    log.info("rejected", **fields)
                await self._context.abort_with_status(rpc_status.to_status(to_status(error)))
            case grpc.aio.AioRpcError():
                # The status of a downstream service is passed on unchanged.
                self._code = error.code().name
                details = read_error_details(error)
                if (fields := self._rejection_fields(details.reason, details.message)) is not None:
                    log.info("rejected_downstream", **fields)
                status = status_of(error)
                if status is not None:
                    await self._context.abort_with_status(rpc_status.to_status(status))
                await self._context.abort(error.code(), details.message)
            case _:
                self._code = "INTERNAL"
                error_id = uuid.uuid4().hex[:12]
                log.error("unexpected_error", method=self._method, error_id=error_id, exc_info=error)
                internal = ServiceError(
                    f"an unexpected error occurred; the server's log shows it under error_id {error_id}",
                    reason="INTERNAL",
                    metadata={"error_id": error_id},
                )
                await self._context.abort_with_status(rpc_status.to_status(to_status(internal)))
        raise AssertionError("abort raises")

    def _rejection_fields(self, reason: str, message: str) -> dict[str, Any] | None:
        """Returns what to log; None if one like it was just logged."""
        fields = {"method": self._method, "code": self._code, "reason": reason, "error": message}
        if self._code != "RESOURCE_EXHAUSTED":
            return fields
        skipped = _refusals.admit((self._method, reason))
        return None if skipped is None else fields | ({"not_logged": skipped} if skipped else {})

    def record(self) -> None:
        """Logs and counts the finished call."""
        seconds = time.monotonic() - self._started_at
        log.debug("served", method=self._method, code=self._code, seconds=round(seconds, 6))
        if self._metrics is not None:
            self._metrics.count_handled(self._code, seconds)
        if self._span is not None:
            end_call(self._span, self._code)


def _refusing_handler(error: ServiceError) -> Handler:
    async def refuse(requests: Any, context: Context) -> None:
        raise error

    # Of this kind, because gRPC reads the request of a unary call before it calls the method.
    return grpc.stream_stream_rpc_method_handler(refuse)


def _code_name(code: Any) -> str:
    """Returns the name of a `ServicerContext.code()`, which is a StatusCode or its number."""
    for known in grpc.StatusCode:
        if code in (known, known.value[0]):
            return known.name
    return "UNKNOWN"
