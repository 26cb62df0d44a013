"""Limits how many calls each service serves at once, and refuses the others before their requests are read.

gRPC's own limit (`maximum_concurrent_rpcs`) would not say when to retry, and would refuse health checks too.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from grpc_health.v1 import health

from dgx_music.access.v1 import access_pb2
from dgx_music.errors import ResourceExhausted
from service_runtime.rpc.interceptors import HANDLER_KINDS
from service_runtime.settings import Settings

if TYPE_CHECKING:
    from service_runtime.rpc.interceptors import Context, Handler

FRONT_DOOR = "dgx_music.gateway.v1.MusicService"
HEADROOM = 4
"""The services behind the gateway accept so many times as many calls, so that those of a full gateway, or of several,
leave room for those of the workers."""
SLOW_METHODS = {"Render", "EditTags", "LoadModel"}
"""Unary methods that take seconds, and so count as streams: they would keep all others out."""
MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 1.0, 60.0
INITIAL_CALL_SECONDS = 0.5
"""How long a call is expected to take before any has been measured."""
AVERAGING_WEIGHT = 0.05
"""Of each call in the average duration."""


class Budget:
    """How many calls of one kind a service may serve at once.

    Callers who are refused are told to come back one after another, as fast as calls are served. Had they all the same
    wait, they would come together again, and refusing them would take more time than serving others.
    """

    def __init__(self, service: str, kind: str, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.service, self.kind, self.limit = service, kind, limit
        self._clock = clock
        self._active = 0
        self._call_seconds = INITIAL_CALL_SECONDS
        """Average duration of a call."""
        self._last_retry_at = 0.0
        """When the last caller who was refused should come back."""

    def check(self) -> None:
        """Raises ResourceExhausted if no more calls fit."""
        if self._active >= self.limit:
            retry_seconds = self._reserve_retry()
            raise ResourceExhausted(
                f"the server is busy: it serves {self.limit} {self.kind} at a time; try again in {retry_seconds:g} s",
                reason="SERVER_BUSY",
                metadata={"service": self.service, "kind": self.kind, "limit": str(self.limit)},
                retry_after_seconds=retry_seconds,
            )

    @contextmanager
    def occupy(self) -> Iterator[None]:
        """Counts a call while the block runs. Raises ResourceExhausted if it does not fit."""
        self.check()
        self._active += 1
        started_at = self._clock()
        try:
            yield
        finally:
            self._active -= 1
            self._call_seconds += AVERAGING_WEIGHT * (self._clock() - started_at - self._call_seconds)

    def _reserve_retry(self) -> float:
        """Returns the seconds after which the next caller should come back."""
        now = self._clock()
        next_at = max(self._last_retry_at, now + MIN_RETRY_SECONDS) + self._call_seconds / self.limit
        self._last_retry_at = min(next_at, now + MAX_RETRY_SECONDS)
        return round(self._last_retry_at - now, 2)


class LoadLimit(grpc.aio.ServerInterceptor):
    """The budgets of all services of a process, whichever address is called. Unary calls and streams have separate
    ones: listeners, who stay for minutes, don't keep others from a short call.

    Health is never refused; nor are methods that only our own services may call, since each of those calls belongs to
    work that was accepted before.
    """

    def __init__(self, settings: Settings) -> None:
        self._limits = {"calls": settings.max_concurrent_calls, "streams": settings.max_concurrent_streams}
        self._budgets: dict[tuple[str, str], Budget] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        budget = self._budget_of(handler_call_details.method)
        if budget is None:
            return await continuation(handler_call_details)
        try:
            budget.check()
        except ResourceExhausted as error:
            return _refusing_handler(error)
        handler = await continuation(handler_call_details)
        return None if handler is None else _limit_handler(handler, budget)

    def _budget_of(self, path: str) -> Budget | None:
        """Returns None for a method without a limit."""
        method = _find_method(path)
        if method is None:
            return None
        key = method.service, method.kind
        if key not in self._budgets:
            factor = 1 if method.service == FRONT_DOOR else HEADROOM
            self._budgets[key] = Budget(*key, self._limits[method.kind] * factor)
        return self._budgets[key]


@dataclass(frozen=True)
class _LimitedMethod:
    service: str
    kind: str


@lru_cache(maxsize=1024)
def _find_method(path: str) -> _LimitedMethod | None:
    """Returns None for a method that is not limited, or that does not exist, which gRPC answers itself."""
    try:
        method = descriptor_pool.Default().FindMethodByName(path.removeprefix("/").replace("/", "."))
    except KeyError:
        return None
    service = method.containing_service
    if service.full_name == health.SERVICE_NAME:
        return None
    options: Any = method.GetOptions()
    if service.full_name.startswith("dgx_music.") and not options.HasExtension(access_pb2.required_scope):
        return None
    is_long = method.client_streaming or method.server_streaming or method.name in SLOW_METHODS
    return _LimitedMethod(service.full_name, "streams" if is_long else "calls")


def _refusing_handler(error: ResourceExhausted) -> Handler:
    async def refuse(requests: Any, context: Context) -> None:
        raise error

    # Of this kind, because gRPC reads the request of a unary call before it calls the method.
    return grpc.stream_stream_rpc_method_handler(refuse)


def _limit_handler(handler: Handler, budget: Budget) -> Handler:
    """The budget is checked again when the request has been read: others may have come meanwhile."""
    attribute, build_handler = HANDLER_KINDS[handler.request_streaming, handler.response_streaming]
    method = getattr(handler, attribute)

    async def call(request: Any, context: Context) -> Any:
        with budget.occupy():
            return await method(request, context)

    async def generate(request: Any, context: Context) -> AsyncIterator[Any]:
        with budget.occupy():
            async with aclosing(method(request, context)) as responses:
                async for response in responses:
                    yield response

    behaviour = generate if inspect.isasyncgenfunction(method) else call
    return build_handler(behaviour, handler.request_deserializer, handler.response_serializer)
