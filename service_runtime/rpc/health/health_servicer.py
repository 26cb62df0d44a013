"""grpc.health.v1 for any number of watchers.

Unlike the servicer of grpcio-health-checking, in which all watchers of a service share a lock, a watcher that does not
read delays neither the others nor the publication of a state; and a watcher does not delay the end of the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import (  # type: ignore[attr-defined]  # types-grpcio does not know them.
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
    HealthListResponse,
)
from grpc_status import rpc_status

from dgx_music.error_status import to_status
from dgx_music.errors import NotFound, ResourceExhausted, Unavailable

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING

LIVENESS = "liveness"
"""The name under which Kubernetes's liveness probes ask: SERVING as long as the event loop answers, also while the
services start, lack something or drain, none of which a restart would mend."""
MAX_WATCHERS = 4096
"""Watches at a time, most of them by clients that choose among several servers. Strangers may not fill the memory with
them."""

Context = grpc.aio.ServicerContext[Any, Any]


class HealthServicer(health_pb2_grpc.HealthServicer):
    """The states of the services of a server; "" stands for the server. Belongs to one event loop."""

    def __init__(self) -> None:
        self._states: dict[str, int] = {"": NOT_SERVING, LIVENESS: SERVING}
        self._watchers: set[asyncio.Event] = set()
        self._is_shut_down = False

    def publish(self, name: str, *, is_serving: bool) -> None:
        """Sets the state of a service and notifies its watchers. Does nothing after `shut_down`."""
        if not self._is_shut_down:
            self._states[name] = SERVING if is_serving else NOT_SERVING
            self._notify()

    def shut_down(self) -> None:
        """Makes all services NOT_SERVING for good, and ends the watches once they have said so."""
        self._is_shut_down = True
        self._states = dict.fromkeys(self._states, NOT_SERVING) | {LIVENESS: SERVING}
        self._notify()

    def _notify(self) -> None:
        for changed in self._watchers:
            changed.set()

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        state = self._states.get(request.service)
        if state is None:
            # Not a ServiceError, which would be logged: whoever waits for a service to appear asks again and again.
            known = ", ".join(filter(None, self._states))
            unknown = NotFound("service", request.service, f"this server has {known}")
            await context.abort_with_status(rpc_status.to_status(to_status(unknown)))
        return HealthCheckResponse(status=state)

    async def List(self, request: HealthListRequest, context: Context) -> HealthListResponse:
        statuses = {name: HealthCheckResponse(status=state) for name, state in self._states.items()}
        return HealthListResponse(statuses=statuses)

    async def Watch(self, request: HealthCheckRequest, context: Context) -> AsyncIterator[HealthCheckResponse]:
        if len(self._watchers) >= MAX_WATCHERS:
            raise ResourceExhausted(
                f"{MAX_WATCHERS} callers watch the health of this server already", reason="TOO_MANY_WATCHERS"
            )
        changed = asyncio.Event()
        self._watchers.add(changed)
        last_sent = None
        try:
            while True:
                changed.clear()
                state = self._states.get(request.service, HealthCheckResponse.SERVICE_UNKNOWN)
                if state != last_sent:
                    last_sent = state
                    yield HealthCheckResponse(status=state)
                elif self._is_shut_down:
                    raise Unavailable("the server is shutting down", reason="SHUTTING_DOWN", retry_after_seconds=1.0)
                else:
                    await changed.wait()
        finally:
            self._watchers.discard(changed)
