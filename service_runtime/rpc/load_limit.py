"""Limits how many calls each service serves at once. A burst waits its turn; what would wait too long is refused.

gRPC's own limit (`maximum_concurrent_rpcs`) has no queue, would not say when to retry, and would refuse health checks
too.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from grpc_health.v1 import health

from dgx_music.access.v1 import access_pb2
from dgx_music.errors import ResourceExhausted, Unavailable
from service_runtime.access.caller import current_caller
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
WAITING_FACTOR = 32
"""So many times as many calls as are served at once may wait. Streams, which last for minutes, never wait."""
MAX_WAIT_SECONDS = 1.0
"""How long a call may be expected to wait for its turn."""
CLIENT_SHARE = 0.5
"""Of the queue, for one client: its burst leaves room for the calls of others."""
MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 1.0, 60.0
MAX_CLOSING_SECONDS = 1.0
"""How long a server that shuts down accepts calls to refuse them, and waits for short calls at work, at most."""
TURNS_TO_ACCEPT, CLOSING_PAUSE_SECONDS = 10, 0.002
"""Turns of the event loop in which a call that has arrived is accepted, and how long each lasts at least."""
INITIAL_CALL_SECONDS = 0.02
"""How long a call is expected to take before any has been measured."""
AVERAGING_WEIGHT = 0.05
"""Of each call in the average duration."""


class Budget:
    """How many calls of one kind a service may serve at once, and the queue of those that wait for their turn.

    Clients take turns in the queue; a client's calls are served in the order in which they came.

    Callers who are refused are told to come back one after another, as fast as calls are served. Had they all the same
    wait, they would come together again, and refusing them would take more time than serving others.
    """

    def __init__(
        self, service: str, kind: str, limit: int, max_waiting: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.service, self.kind, self.limit, self.max_waiting = service, kind, limit, max_waiting
        self._clock = clock
        self._active = 0
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}
        """Client → its waiting calls, of which there is at least one. The first client is the next."""
        self._waiting = 0
        """Length of all queues. Nobody waits while a place is free."""
        self._freed_at = 0.0
        """When a place was last freed, or taken while others were free."""
        self._is_closed = False
        self._call_seconds = INITIAL_CALL_SECONDS
        """Average duration of a call."""
        self._last_retry_at = 0.0
        """When the last caller who was refused should come back."""

    def check(self) -> None:
        """Raises ResourceExhausted if no more calls fit, whoever makes them."""
        if self._active >= self.limit and (
            self._waiting >= self.max_waiting or self._expected_wait(self._waiting) > MAX_WAIT_SECONDS / CLIENT_SHARE
        ):
            raise self._refusal()

    @asynccontextmanager
    async def occupy(self, client: str = "", seconds_left: float | None = None) -> AsyncIterator[None]:
        """Waits for a place, and has it while the block runs.

        Raises ResourceExhausted if the call does not fit, or would wait for longer than the `seconds_left` to it, and
        Unavailable if the server shuts down before its turn.
        """
        if self._active < self.limit:
            self._active += 1
            self._freed_at = self._clock()
        else:
            await self._wait(client, seconds_left)
        started_at = self._clock()
        try:
            yield
        finally:
            self._call_seconds += AVERAGING_WEIGHT * (self._clock() - started_at - self._call_seconds)
            self._free()

    def close(self) -> None:
        """Ends all calls that wait, and from now on those that would have to."""
        self._is_closed = True
        queues, self._queues, self._waiting = self._queues, {}, 0
        for queue in queues.values():
            for turn in queue:
                if not turn.done():
                    turn.set_exception(_shutting_down())

    def is_working(self) -> bool:
        """Whether calls are at work that end soon."""
        return self._active > 0 and self.kind == "calls"

    async def _wait(self, client: str, seconds_left: float | None) -> None:
        """Returns when the call has got the place of one that has ended."""
        if self._is_closed:
            raise _shutting_down()
        own = len(self._queues.get(client, ()))
        in_turn = (own + 1) * (len(self._queues) + (own == 0))
        wait_seconds = self._expected_wait(min(in_turn, self._waiting + 1))
        is_late = wait_seconds > MAX_WAIT_SECONDS or (seconds_left is not None and wait_seconds > seconds_left)
        if is_late or own >= self.max_waiting * CLIENT_SHARE or self._waiting >= self.max_waiting:
            raise self._refusal()
        turn = asyncio.get_running_loop().create_future()
        self._queues.setdefault(client, deque()).append(turn)
        self._waiting += 1
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                if turn.exception() is None:  # Its turn had come.
                    self._free()
            elif turn in self._queues.get(client, ()):
                self._queues[client].remove(turn)
                self._waiting -= 1
                if not self._queues[client]:
                    del self._queues[client]
            raise

    def _free(self) -> None:
        """Gives the place of a call that has ended to the next one that waits."""
        self._freed_at = self._clock()
        while self._queues:
            client = next(iter(self._queues))
            queue = self._queues.pop(client)
            turn = queue.popleft()
            self._waiting -= 1
            if queue:
                self._queues[client] = queue  # At the end: the other clients come first.
            if not turn.done():
                turn.set_result(None)
                return
        self._active -= 1
        if not self._active:
            self._call_seconds = min(self._call_seconds, INITIAL_CALL_SECONDS)  # An idle server is not slow any more.

    def _expected_wait(self, place: int) -> float:
        """Returns the seconds until so many of the calls at work and before this one have ended."""
        return max(place * self._call_seconds / self.limit, self._clock() - self._freed_at)

    def _refusal(self) -> ResourceExhausted:
        retry_seconds = self._reserve_retry()
        return ResourceExhausted(
            f"the server is busy: it serves {self.limit} {self.kind} at a time; try again in {retry_seconds:g} s",
            reason="SERVER_BUSY",
            metadata={"service": self.service, "kind": self.kind, "limit": str(self.limit)},
            retry_after_seconds=retry_seconds,
        )

    def _reserve_retry(self) -> float:
        """Returns the seconds after which the next caller should come back."""
        now = self._clock()
        next_at = max(self._last_retry_at, now + MIN_RETRY_SECONDS) + self._call_seconds / self.limit
        self._last_retry_at = min(next_at, now + MAX_RETRY_SECONDS)
        return round(self._last_retry_at - now, 2)


def _shutting_down() -> Unavailable:
    return Unavailable("the server is shutting down", reason="SHUTTING_DOWN", retry_after_seconds=1.0)


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
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        budget = self._budget_of(handler_call_details.method)
        if budget is None:
            return await continuation(handler_call_details)
        if self._is_closed and budget.service in self._closing:
            self._turned_away += 1
            raise _shutting_down()
        budget.check()
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


def _limit_handler(handler: Handler, budget: Budget) -> Handler:
    attribute, build_handler = HANDLER_KINDS[handler.request_streaming, handler.response_streaming]
    method = getattr(handler, attribute)

    async def call(request: Any, context: Context) -> Any:
        async with budget.occupy(current_caller().client, context.time_remaining()):
            return await method(request, context)

    async def generate(request: Any, context: Context) -> AsyncIterator[Any]:
        async with budget.occupy(current_caller().client), aclosing(method(request, context)) as responses:
            async for response in responses:
                yield response

    behaviour = generate if inspect.isasyncgenfunction(method) else call
    return build_handler(behaviour, handler.request_deserializer, handler.response_serializer)
