"""Keeps grpc.health.v1 true: each service is asked, again and again, whether it can work."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from grpc_health.v1 import health, health_pb2

from service_runtime.observability.logging import get_logger
from service_runtime.rpc.service import Service
from service_runtime.rpc.stop_signal import stop_for
from service_runtime.supervision import UnrecoverableError

log = get_logger(__name__)

HEALTH_PERIOD_SECONDS = 2.0
"""How often each service is checked; also how long a check may take."""
RECOVERY_PERIOD_SECONDS = 0.25
"""How often while one is not well: servers that are started together should not wait for each other's next turn."""

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def monitor_health(
    services: Sequence[Service], health_servicer: health.aio.HealthServicer, healthy: dict[str, bool]
) -> None:
    while True:
        await asyncio.sleep(HEALTH_PERIOD_SECONDS if all(healthy.values()) else RECOVERY_PERIOD_SECONDS)
        for service in services:
            await check_health(service, health_servicer, healthy)


async def check_health(service: Service, health_servicer: health.aio.HealthServicer, healthy: dict[str, bool]) -> None:
    """Asks the service whether it can work, and tells health; the server as a whole ("") works when all of them do."""
    try:
        async with asyncio.timeout(HEALTH_PERIOD_SECONDS):  # Python 3.11's wait_for may swallow a cancellation.
            await service.check()
        now = True
    except Exception as error:  # Whatever keeps it from answering is what NOT_SERVING means.
        now = False
        if isinstance(error, UnrecoverableError):
            stop_for(error)
        if healthy.get(service.full_name) is not False:
            log.warning("not serving", service=service.full_name, error=str(error) or type(error).__name__)
    if now and healthy.get(service.full_name) is False:
        log.info("serving again", service=service.full_name)
    healthy[service.full_name] = now
    await health_servicer.set(service.full_name, SERVING if now else NOT_SERVING)
    await health_servicer.set("", SERVING if all(healthy.values()) else NOT_SERVING)
