"""Keeps grpc.health.v1 true: checks each service periodically and publishes the result."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from grpc_health.v1 import health, health_pb2

from service_runtime.observability.logging import get_logger
from service_runtime.rpc.service import Service
from service_runtime.rpc.stop_signal import request_stop
from service_runtime.supervision import UnrecoverableError

log = get_logger(__name__)

HEALTH_PERIOD_SECONDS = 2.0
"""Pause between checks while all services are healthy; also the timeout of a check."""
RECOVERY_PERIOD_SECONDS = 0.25
"""Pause while a service is unhealthy: servers started together should not wait a whole period for each other."""

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def monitor_health(
    services: Sequence[Service], health_servicer: health.aio.HealthServicer, healthy: dict[str, bool]
) -> None:
    """Checks the services until it is cancelled. `healthy` maps a service's full name to its last result."""
    while True:
        await asyncio.sleep(HEALTH_PERIOD_SECONDS if all(healthy.values()) else RECOVERY_PERIOD_SECONDS)
        for service in services:
            await check_health(service, health_servicer, healthy)


async def check_health(service: Service, health_servicer: health.aio.HealthServicer, healthy: dict[str, bool]) -> None:
    """Checks one service and publishes its status, and that of the whole server (""), which needs all services."""
    try:
        async with asyncio.timeout(HEALTH_PERIOD_SECONDS):  # Python 3.11's wait_for may swallow a cancellation.
            await service.check()
        is_healthy = True
    except Exception as error:  # Any failure of the check means NOT_SERVING.
        is_healthy = False
        if isinstance(error, UnrecoverableError):
            request_stop(error)
        if healthy.get(service.full_name) is not False:
            log.warning("not_serving", service=service.full_name, error=str(error) or type(error).__name__)
    if is_healthy and healthy.get(service.full_name) is False:
        log.info("serving_again", service=service.full_name)
    healthy[service.full_name] = is_healthy
    await health_servicer.set(service.full_name, SERVING if is_healthy else NOT_SERVING)
    await health_servicer.set("", SERVING if all(healthy.values()) else NOT_SERVING)
