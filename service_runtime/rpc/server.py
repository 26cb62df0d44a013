"""The one way to run a server: bind, tell the truth about health, serve, drain, end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from dgx_music.channel import KEEPALIVE_SECONDS
from service_runtime.observability.logging import get_logger
from service_runtime.observability.metrics import Observer, metrics_endpoint
from service_runtime.rpc.binding import bind, is_local, require_local_or_allowed
from service_runtime.rpc.health_monitor import check_health, monitor_health
from service_runtime.rpc.interceptors import CallInterceptor
from service_runtime.rpc.service import MetricsProvider, Service
from service_runtime.rpc.stop_signal import stop_signal
from service_runtime.settings import Settings

log = get_logger(__name__)

SERVER_OPTIONS: Sequence[tuple[str, int]] = (
    # Two servers could share a port in silence, each with half of the calls.
    ("grpc.so_reuseport", 0),
    # With bandwidth probing a server runs megabytes ahead of a reader that has stopped; without, 128 kB.
    ("grpc.http2.bdp_probe", 0),
    # The least window is one message of audio: both sides would wait for each other at every one.
    ("grpc.http2.lookahead_bytes", 1 << 18),
    # Clients ping a silent connection (channel.py); twice as often as they do is not yet abuse.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", KEEPALIVE_SECONDS * 500),
)


@asynccontextmanager
async def serve_services(
    services: Sequence[Service],
    addresses: Sequence[str],
    settings: Settings,
    *,
    public_addresses: Mapping[str, Service] | None = None,
) -> AsyncIterator[list[str]]:
    """Runs the services while the block runs, then drains: health NOT_SERVING, no new work, running calls ended within
    the grace.

    All services can be called at each of `addresses`; at each address of `public_addresses`, its one service alone.
    Gives the addresses bound, with the real port where 0 was asked for.
    Raises FailedPrecondition where an address is taken, or open to a network without TLS.
    """
    listeners: dict[str, Sequence[Service]] = dict.fromkeys(addresses, services)
    listeners |= {address: [service] for address, service in (public_addresses or {}).items()}
    for address in listeners:
        require_local_or_allowed(address, settings)
    health_servicer = health.aio.HealthServicer()
    with metrics_endpoint(settings.metrics_port) as observer:
        servers: list[grpc.aio.Server] = []
        started: list[Service] = []
        monitor: asyncio.Task[None] | None = None
        try:
            bound = []
            for address, listed in listeners.items():
                server = _build_server(listed, address, health_servicer, settings, observer)
                servers.append(server)
                bound.append(bind(server, address))
            for service in services:
                started.append(service)
                await service.start()
                if observer is not None and isinstance(service, MetricsProvider):
                    observer.watch(service.gauges)
            for server in servers:
                await server.start()
            healthy: dict[str, bool] = {}
            for service in services:
                await check_health(service, health_servicer, healthy)
            monitor = asyncio.create_task(monitor_health(services, health_servicer, healthy))
            log.info("serving", addresses=bound, services=[service.full_name for service in services])
            yield bound
        finally:
            if monitor is not None:
                monitor.cancel()
            await health_servicer.enter_graceful_shutdown()
            await asyncio.gather(*(service.drain() for service in started))
            await asyncio.gather(*(server.stop(settings.grace_seconds) for server in servers))
            for service in reversed(started):
                await service.stop()
            log.info("stopped")


async def serve_until_signalled(
    services: Sequence[Service],
    address: str,
    settings: Settings,
    *,
    public_addresses: Mapping[str, Service] | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, then drains; a second signal ends the process at once.

    Raises UnrecoverableError, after the drain, if a service can't work again in this process: a supervisor restarts it.
    """
    async with stop_signal() as stop, serve_services(services, [address], settings, public_addresses=public_addresses):
        await stop.wait()
        log.info("draining", grace_seconds=settings.grace_seconds)


def _build_server(
    services: Sequence[Service],
    address: str,
    health_servicer: health.aio.HealthServicer,
    settings: Settings,
    observer: Observer | None,
) -> grpc.aio.Server:
    server = grpc.aio.server(
        interceptors=[CallInterceptor(observer)],
        options=SERVER_OPTIONS,
        maximum_concurrent_rpcs=settings.max_concurrent_rpcs,
    )
    for service in services:
        service.add_to(server)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    if settings.reflection if settings.reflection is not None else is_local(address):
        names = [service.full_name for service in services]
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    return server
