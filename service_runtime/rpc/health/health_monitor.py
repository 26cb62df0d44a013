"""Keeps grpc.health.v1 true: checks each service periodically and publishes the result.

A service is NOT_SERVING as soon as a check finds that something it needs is missing. A check that takes long has found
nothing missing: under load, databases and other servers answer late. So the last state remains until the check has
taken `CHECK_TIMEOUT_SECONDS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from service_runtime.observability.logging import get_logger
from service_runtime.rpc.health.health_servicer import HealthServicer
from service_runtime.rpc.service import Service
from service_runtime.rpc.stop_signal import request_stop
from service_runtime.supervision import UnrecoverableError

log = get_logger(__name__)

HEALTH_PERIOD_SECONDS = 2.0
"""Pause between two checks of a healthy service; also how long the first check may take, which delays the start."""
RECOVERY_PERIOD_SECONDS = 0.25
"""Pause while a service is unhealthy: servers started together should not wait a whole period for each other."""
CHECK_TIMEOUT_SECONDS = 15.0
"""How long a check may take."""


class HealthMonitor:
    """Publishes the state of each service, and that of the whole server (""), which needs all of them."""

    def __init__(self, services: Sequence[Service], servicer: HealthServicer) -> None:
        self._services, self._servicer = services, servicer
        self._states: dict[str, bool] = {}
        """Full name → whether the service's last check has passed."""

    async def check_all(self) -> None:
        """Checks each service once. One that does not answer in time is NOT_SERVING: it has no earlier state."""
        for service in self._services:
            await self._check(service, HEALTH_PERIOD_SECONDS)

    async def run(self) -> None:
        """Checks the services until it is cancelled, each by itself: a slow check delays no other."""
        async with asyncio.TaskGroup() as group:
            for service in self._services:
                group.create_task(self._check_periodically(service))

    async def _check_periodically(self, service: Service) -> None:
        while True:
            is_healthy = self._states[service.full_name]
            await asyncio.sleep(HEALTH_PERIOD_SECONDS if is_healthy else RECOVERY_PERIOD_SECONDS)
            await self._check(service, CHECK_TIMEOUT_SECONDS)

    async def _check(self, service: Service, timeout_seconds: float) -> None:
        try:
            async with asyncio.timeout(timeout_seconds):  # Python 3.11's wait_for may swallow a cancellation.
                await service.check()
        except Exception as error:  # Any failure of the check means NOT_SERVING.
            if isinstance(error, UnrecoverableError):
                request_stop(error)
            if self._states.get(service.full_name) is not False:
                problem = f"no answer in {timeout_seconds:g} s" if isinstance(error, TimeoutError) else str(error)
                log.warning("not_serving", service=service.full_name, error=problem or type(error).__name__)
            self._publish(service, is_healthy=False)
        else:
            if self._states.get(service.full_name) is False:
                log.info("serving_again", service=service.full_name)
            self._publish(service, is_healthy=True)

    def _publish(self, service: Service, *, is_healthy: bool) -> None:
        self._states[service.full_name] = is_healthy
        self._servicer.publish(service.full_name, is_serving=is_healthy)
        self._servicer.publish("", is_serving=all(self._states.get(each.full_name) for each in self._services))
