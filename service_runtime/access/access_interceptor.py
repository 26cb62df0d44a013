"""Admits calls: who calls, whether they may, how often, and what they changed. Wraps every method of every servicer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from dgx_music.credentials import CLIENT_KEY
from dgx_music.errors import PermissionDenied, ServiceError
from service_runtime.access.audit import AuditLog, find_ids, is_audited
from service_runtime.access.authentication import Authenticator, peer_host, read_bearer, read_client_name
from service_runtime.access.caller import Caller, Scope, set_caller
from service_runtime.access.rate_limit import RateLimiter
from service_runtime.access.scopes import is_open_to_all, required_scope
from service_runtime.access.token_recheck import TokenRecheck
from service_runtime.method_wrapping import wrap_method

if TYPE_CHECKING:
    from service_runtime.access.authentication import Metadata
    from service_runtime.method_wrapping import Context, Continuation, Handler, Step


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Raises Unauthenticated, PermissionDenied and ResourceExhausted; an interceptor around it makes them a status."""

    def __init__(self, authenticator: Authenticator, rate_limiter: RateLimiter, audit_log: AuditLog) -> None:
        self.authenticator, self.rate_limiter, self.audit_log = authenticator, rate_limiter, audit_log

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None:  # There is no such method; gRPC itself answers UNIMPLEMENTED.
            return handler
        method = handler_call_details.method
        metadata = tuple(handler_call_details.invocation_metadata or ())
        is_open = handler.request_streaming or handler.response_streaming
        try:
            bearer = read_bearer(metadata)
            if bearer is None and is_open_to_all(method):
                return handler
            await self.authenticator.check_token(bearer)
        except Exception as error:
            return self._refuse(error, method, metadata)
        return wrap_method(
            handler, lambda request, context: _Admission(self, method, is_open, metadata, request, context)
        )

    def _refuse(self, error: Exception, method: str, metadata: Metadata) -> Handler:
        async def refuse(requests: Any, context: Context) -> None:
            _Admission(self, method, True, metadata, requests, context).record(error)
            raise error

        # Of this kind, because gRPC reads the request of a unary call before it calls the method: strangers could fill
        # the memory.
        return grpc.stream_stream_rpc_method_handler(refuse)


class _Admission:
    """One call: its admission, and its line in the audit log."""

    def __init__(
        self,
        parts: AccessInterceptor,
        method: str,
        is_open: bool,
        metadata: Metadata,
        request: Any,
        context: Context,
    ) -> None:
        """`is_open` says whether it is a stream, whose caller is verified again and again."""
        self._parts, self._method, self._is_open = parts, method, is_open
        self._metadata, self._context = metadata, context
        self._host = peer_host(context)  # Now, because a call that has ended has no peer to ask for.
        self._required = required_scope(method)
        self._caller: Caller | None = None
        self._open_call: TokenRecheck | None = None
        self._messages: list[Any] = [request]

    async def __aenter__(self) -> Step | None:
        try:
            verify = await self._admit()
        except BaseException as error:
            self.record(error)
            raise
        if verify is not None and self._is_open:
            self._open_call = await TokenRecheck(verify).__aenter__()
        return self._step if self._open_call is not None or self._is_audited() else None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open_call is not None:
            await self._open_call.__aexit__()
        self.record(error)

    async def _admit(self) -> Callable[[], Awaitable[object]] | None:
        """Makes the caller the current one. Returns what verifies its token again; None if it has shown none of ours.

        Raises what keeps the caller from making this call.
        """
        authenticator = self._parts.authenticator
        bearer = read_bearer(self._metadata)
        name = read_client_name(self._metadata)
        self._caller = caller = await authenticator.identify(bearer, name, self._host, self._context)
        set_caller(caller)
        if caller.token_id is None or bearer is None:  # A service, or someone on a listener that trusts all.
            return None
        token = await authenticator.tokens.verify(bearer)
        self._parts.rate_limiter.take(token.id, token.limits.calls_per_minute)  # Also of calls that it may not make.
        if caller.scope < self._required:
            raise _lacks_scope(caller, self._required, self._method)
        return lambda: authenticator.tokens.verify_again(bearer, token)

    async def _step(self, step: Callable[[], Awaitable[Any]]) -> Any:
        """Notes the first response, for the ids in it."""
        response = await (step() if self._open_call is None else self._open_call.run(step))
        if len(self._messages) < 2:
            self._messages.append(response)
        return response

    def _is_audited(self) -> bool:
        names_client = any(key == CLIENT_KEY for key, _ in self._metadata)
        return is_audited(self._method, self._required, self._caller, names_client)

    def record(self, error: BaseException | None) -> None:
        """Adds the call to the audit log, if it belongs there."""
        if self._is_audited():
            code = "OK" if error is None else _code_of(error, self._context)
            ids = find_ids(*self._messages)
            self._parts.audit_log.record(self._method, self._caller, self._host, ids, code)


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
