"""Limits how many calls each service serves at once. A burst waits its turn; what would wait too long is refused.

gRPC's own limit (`maximum_concurrent_rpcs`) has no queue, would not say when to retry, and would refuse health checks
too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from grpc_health.v1 import health

from dgx_music.access.v1 import access_pb2
from service_runtime.access.caller import current_caller
from service_runtime.method_wrapping import CallScope, wrap_method
from service_runtime.rpc.load.call_budget import Budget, shutting_down
from service_runtime.rpc.load.transport_limits import require_small_metadata
from service_runtime.settings import Settings

if TYPE_CHECKING:
    from service_runtime.method_wrapping import Context, Continuation, Handler

FRONT_DOOR = "dgx_music.gateway.v1.MusicService"
HEADROOM = 4
"""The services behind the gateway accept this many times as many calls, so that those of a full gateway, or of several,
leave room for those of the workers."""
SLOW_METHODS = {"Render", "EditTags", "LoadModel"}
"""Unary methods that take seconds, and so count as streams: they would keep all others out."""
WAITING_FACTOR = 32
"""So many times as many calls as are served at once may wait. Streams, which last for minutes, never wait."""
MIN_CALLS_OF_CONNECTION = 1024
MAX_CLOSING_SECONDS = 1.0
"""How long a server that shuts down accepts calls to refuse them, and waits for short calls at work, at most."""
TURNS_TO_ACCEPT, CLOSING_PAUSE_SECONDS = 10, 0.002
"""Turns of the event loop in which a call that has arrived is accepted, and how long each lasts at least."""


class LoadLimit(grpc.aio.ServerInterceptor):
    """The budgets of all services of a process, whichever address is called. Unary calls and streams have separate
    ones: listeners, who stay for minutes, don't keep others from a short call.

    Comes after the interceptor that verifies the caller, so that only calls which are allowed take a place or wait for
    one. What fits in no case is refused before: its request is not read, and its token not verified.

    Health is never refused; nor are methods that only our own services may call, since each of those calls belongs to
    work that was accepted before.
    """

    def __init__(self, settings: Settings, services: Collection[str]) -> None:
        """`services` are the full names of those that the process serves."""
        self._closing = {FRONT_DOOR} & set(services) or set(services)
        self._closing_seconds = min(MAX_CLOSING_SECONDS, settings.grace_seconds)
        self._is_closed = False
        self._turned_away = 0
        """Calls that have come since `close`."""
        self._limits = {"calls": settings.max_concurrent_calls, "streams": settings.max_concurrent_streams}
        self._budgets: dict[tuple[str, str], Budget] = {}

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        require_small_metadata(handler_call_details.invocation_metadata or ())
        budget = self._budget_of(handler_call_details.method)
        if budget is None:
            return await continuation(handler_call_details)
        if self._is_closed and budget.service in self._closing:
            self._turned_away += 1
            raise shutting_down()
        budget.check()
        handler = await continuation(handler_call_details)
        if handler is None:
            return None

        def occupy(request: Any, context: Context) -> CallScope:
            seconds_left = context.time_remaining() if budget.kind == "calls" else None
            return budget.occupy(current_caller().client, seconds_left)

        return wrap_method(handler, occupy)

    def _budget_of(self, path: str) -> Budget | None:
        """Returns None for a method without a limit."""
        method = _find_method(path)
        if method is None:
            return None
        key = method.service, method.kind
        if key not in self._budgets:
            factor = 1 if method.service == FRONT_DOOR else HEADROOM
            limit = self._limits[method.kind] * factor
            self._budgets[key] = Budget(*key, limit, limit * WAITING_FACTOR if method.kind == "calls" else 0)
        return self._budgets[key]

    async def close(self) -> None:
        """Ends the calls that wait for their turn, and those that have arrived but were not accepted yet, because the
        server shuts down; gRPC would end the latter with CANCELLED, which tells nobody to try again. Returns when no
        more come, and those at work have ended, but soon in any case.

        If the gateway is among the services, it alone is closed: its calls at work still need the others.
        """
        self._is_closed = True
        closing = [budget for budget in self._budgets.values() if budget.service in self._closing]
        for budget in closing:
            budget.close()
        end_at, seen = time.monotonic() + self._closing_seconds, -1
        while (seen < self._turned_away or any(map(Budget.is_working, closing))) and time.monotonic() < end_at:
            seen = self._turned_away
            for _ in range(TURNS_TO_ACCEPT):
                await asyncio.sleep(CLOSING_PAUSE_SECONDS)


def max_calls_of_connection(settings: Settings, services: Collection[str]) -> int:
    """Returns how many calls one connection may have: as many as a client alone could have served, or waiting, at
    once; further ones, which it would have refused here, wait in the client. At least `MIN_CALLS_OF_CONNECTION`."""
    factor = 1 if set(services) == {FRONT_DOOR} else HEADROOM
    calls = factor * (settings.max_concurrent_streams + settings.max_concurrent_calls * (1 + WAITING_FACTOR))
    return max(MIN_CALLS_OF_CONNECTION, calls)


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
