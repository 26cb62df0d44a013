"""What every call gets from the server: a deadline for downstream calls, error mapping, a log line and metrics."""

from __future__ import annotations

import asyncio
import time
import uuid
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from grpc_status import rpc_status

from dgx_music.error_status import read_error_details, status_of, to_status
from dgx_music.errors import ServiceError
from service_runtime.method_wrapping import wrap_method
from service_runtime.observability.call_metrics import MethodMetrics, method_labels
from service_runtime.observability.logging import bind_generation_id, get_logger
from service_runtime.observability.repeated_events import RepeatedEvents
from service_runtime.observability.tracing import end_call, start_call
from service_runtime.rpc import deadlines
from service_runtime.rpc.request_decoding import Undecodable, decode_or_refuse

log = get_logger(__name__)

_refusals = RepeatedEvents()
"""An overloaded server refuses thousands of calls a minute, and a stranger may have as many refused as it likes."""

REPEATED_CODES = "RESOURCE_EXHAUSTED", "UNAUTHENTICATED"

if TYPE_CHECKING:
    from service_runtime.method_wrapping import Context, Continuation, Handler


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
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        try:
            handler = await continuation(handler_call_details)
        except ServiceError as error:
            handler = _refusing_handler(error)
        if handler is None:  # There is no such method; gRPC itself answers UNIMPLEMENTED.
            return handler
        name = handler_call_details.method
        decode = decode_or_refuse(handler)
        if not self._is_measured:
            return wrap_method(handler, lambda request, context: _CallScope(name, context, request, None), decode)
        metrics = self._find_metrics(name, handler)
        return wrap_method(
            handler,
            lambda request, context: _CallScope(name, context, request, metrics),
            metrics.count_received(decode),
            metrics.count_sent(handler.response_serializer),
        )

    def _find_metrics(self, name: str, handler: Handler) -> MethodMetrics:
        metrics = self._metrics.get(name)
        if metrics is None:
            labels = method_labels(name, handler.request_streaming, handler.response_streaming)
            metrics = self._metrics[name] = MethodMetrics(labels)
        return metrics


class _CallScope:
    """One call from its start to its status."""

    def __init__(self, method: str, context: Context, request: Any, metrics: MethodMetrics | None) -> None:
        deadlines.set_deadline(context.time_remaining())
        self._method, self._context, self._metrics = method, context, metrics
        self._started_at = time.monotonic()
        self._code = "OK"
        self._request = request
        bind_generation_id(request)
        self._span = start_call(method, context.invocation_metadata)
        if metrics is not None:
            metrics.count_started()

    async def __aenter__(self) -> None:
        if isinstance(self._request, Undecodable):
            await self.__aexit__(None, self._request.error, None)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                await self._abort(error)
        finally:
            self._record()

    async def _abort(self, error: BaseException) -> None:
        """Ends the call with the status for the error, which raises. A cancellation is left as it is."""
        match error:
            case asyncio.CancelledError() | GeneratorExit():
                self._code = "CANCELLED"
            case grpc.aio.AbortError():
                self._code = _code_name(self._context.code())
            case ServiceError():
                self._code = error.code
                refusal = to_status(error)
                if (fields := self._rejection_fields(error.reason, refusal.message)) is not None:
                    log.info("rejected", **fields)
                await self._context.abort_with_status(rpc_status.to_status(refusal))
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

    def _rejection_fields(self, reason: str, message: str) -> dict[str, Any] | None:
        """Returns what to log; None if one like it was just logged."""
        fields = {"method": self._method, "code": self._code, "reason": reason, "error": message}
        if self._code not in REPEATED_CODES:
            return fields
        skipped = _refusals.admit((self._method, reason))
        return None if skipped is None else fields | ({"not_logged": skipped} if skipped else {})

    def _record(self) -> None:
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
