"""Admits calls: who calls, whether they may, how often, and what they changed. Wraps every method of every servicer."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from dgx_music.credentials import CLIENT_KEY
from dgx_music.errors import PermissionDenied, ServiceError
from service_runtime.access.audit import AuditLog, find_ids, is_audited
from service_runtime.access.authentication import Authenticator, peer_host, read_bearer, read_client_name
from service_runtime.access.caller import Caller, Scope, set_caller
from service_runtime.access.rate_limit import RateLimiter
from service_runtime.access.scopes import required_scope
from service_runtime.access.token_recheck import TokenRecheck

if TYPE_CHECKING:  # Generic for the type checker only.
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]

END = object()


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Raises Unauthenticated, PermissionDenied and ResourceExhausted; an interceptor around it makes them a status."""

    def __init__(self, authenticator: Authenticator, rate_limiter: RateLimiter, audit_log: AuditLog) -> None:
        self.authenticator, self.rate_limiter, self.audit_log = authenticator, rate_limiter, audit_log

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None:  # There is no such method; gRPC itself answers UNIMPLEMENTED.
            return handler
        kind = f"{_arity(handler.request_streaming)}_{_arity(handler.response_streaming)}"
        method = getattr(handler, kind)
        metadata = dict(handler_call_details.invocation_metadata or ())
        is_open = handler.request_streaming or handler.response_streaming

        async def call(request: Any, context: Context) -> Any:
            admission = _Admission(self, handler_call_details.method, metadata, context)
            try:
                verify = await admission.admit(request)
                if verify is None or not is_open:
                    response = await method(request, context)
                else:
                    async with TokenRecheck(verify) as recheck:
                        response = await recheck.run(lambda: method(request, context))
                admission.saw(response)
                return response
            except BaseException as error:
                admission.code = _code_of(error, context)
                raise
            finally:
                admission.record()

        async def generate(request: Any, context: Context) -> AsyncIterator[Any]:
            admission = _Admission(self, handler_call_details.method, metadata, context)
            try:
                verify = await admission.admit(request)
                # Closed here and not by the garbage collector, so that a cancelled call releases its resources at once.
                async with aclosing(method(request, context)) as responses:
                    if verify is None:
                        async for response in responses:
                            admission.saw(response)
                            yield response
                    else:
                        async with TokenRecheck(verify) as recheck:
                            while (response := await recheck.run(lambda: anext(responses, END))) is not END:
                                admission.saw(response)
                                yield response
            except BaseException as error:
                admission.code = _code_of(error, context)
                raise
            finally:
                admission.record()

        # A streaming method is an async generator, or a coroutine that writes to the context itself (health's Watch).
        wrapped = generate if inspect.isasyncgenfunction(method) else call
        build_handler = getattr(grpc, f"{kind}_rpc_method_handler")
        admitted: Handler = build_handler(wrapped, handler.request_deserializer, handler.response_serializer)
        return admitted


class _Admission:
    """One call: its admission, and its line in the audit log."""

    def __init__(
        self, parts: AccessInterceptor, method: str, metadata: dict[str, str | bytes], context: Context
    ) -> None:
        self._parts, self._method, self._metadata, self._context = parts, method, metadata, context
        self._host = peer_host(context)  # Now, because a call that has ended has no peer to ask for.
        self._required = required_scope(method)
        self._caller: Caller | None = None
        self._messages: list[Any] = []
        self.code = "OK"

    async def admit(self, request: Any) -> Callable[[], Awaitable[object]] | None:
        """Makes the caller the current one. Returns what verifies its token again; None if it has shown none of ours.

        Raises what keeps the caller from making this call.
        """
        self._messages.append(request)
        authenticator = self._parts.authenticator
        bearer = read_bearer(self._metadata)
        name = read_client_name(self._metadata)
        self._caller = caller = await authenticator.identify(bearer, name, self._host, self._context)
        set_caller(caller)
        if (
            caller.token_id is None or bearer is None
        ):  # A service, or someone on a listener that trusts all who reach it.
            return None
        if caller.scope < self._required:
            raise _lacks_scope(caller, self._required, self._method)
        token = await authenticator.tokens.verify(bearer)
        self._parts.rate_limiter.take(token.id, token.limits.calls_per_minute)
        return lambda: authenticator.tokens.verify(bearer)

    def saw(self, response: Any) -> None:
        """Notes the first response, for the ids in it."""
        if len(self._messages) < 2:
            self._messages.append(response)

    def record(self) -> None:
        """Adds the call to the audit log, if it belongs there."""
        if is_audited(self._required, self._caller, CLIENT_KEY in self._metadata):
            ids = find_ids(*self._messages)
            self._parts.audit_log.record(self._method, self._caller, self._host, ids, self.code)


def _arity(is_stream: bool) -> str:
    return "stream" if is_stream else "unary"


def _lacks_scope(caller: Caller, required: Scope, method: str) -> PermissionDenied:
    name = method.rpartition("/")[2]
    if required is Scope.SERVICE:
        hint = "only the services of DGX Music may call it"
    else:
        hint = f"it needs the scope {required.name.lower()}; ask for a token with that"
    return PermissionDenied(
        f"the token {caller.client!r} has the scope {caller.scope.name.lower()}, which does not allow {name}: {hint}",
        reason="SCOPE_REQUIRED",
        metadata={"scope": caller.scope.name, "required_scope": required.name, "method": method},
    )


def _code_of(error: BaseException, context: Context) -> str:
    """Returns the name of the status code with which the call will end."""
    match error:
        case ServiceError():
            return error.code
        case grpc.aio.AioRpcError():
            return error.code().name
        case asyncio.CancelledError() | GeneratorExit():
            return "CANCELLED"
        case grpc.aio.AbortError():
            codes: dict[Any, str] = {code.value[0]: code.name for code in grpc.StatusCode}
            code: Any = context.code()
            return code.name if isinstance(code, grpc.StatusCode) else codes.get(code, "UNKNOWN")
        case _:
            return "INTERNAL"
