"""Runs gRPC servers: binds, starts the services, reports their health, serves, drains and stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from dgx_music.address import UNIX_PREFIX
from dgx_music.channel import KEEPALIVE_SECONDS
from service_runtime.access.server_access import ServerAccess
from service_runtime.access.server_certificate import build_server_credentials
from service_runtime.observability.logging import get_logger
from service_runtime.observability.metrics_endpoint import metrics_endpoint
from service_runtime.rpc.binding import (
    bind,
    is_local,
    require_local_metrics_or_allowed,
    require_local_or_allowed,
    requires_tokens,
    setting_of,
)
from service_runtime.rpc.call_interceptor import CallInterceptor
from service_runtime.rpc.health.health_endpoint import health_endpoint
from service_runtime.rpc.health.health_monitor import HealthMonitor
from service_runtime.rpc.health.health_servicer import HealthServicer
from service_runtime.rpc.health.systemd_notifier import reporting_to_systemd
from service_runtime.rpc.load.accepting_server import build_server
from service_runtime.rpc.load.load_limit import LoadLimit, max_calls_of_connection
from service_runtime.rpc.load.transport_limits import build_transport_options, raise_file_limit
from service_runtime.rpc.service import MetricsProvider, Service
from service_runtime.rpc.stop_signal import stop_signal
from service_runtime.rpc.web_hosts import WebHosts
from service_runtime.settings import Settings

log = get_logger(__name__)

SERVER_OPTIONS: Sequence[tuple[str, int]] = (
    # Otherwise two servers could silently share a port, each with half of the calls.
    ("grpc.so_reuseport", 0),
    # With bandwidth probing a server sends megabytes to a client that has stopped reading; without it, 128 kB.
    ("grpc.http2.bdp_probe", 0),
    # The minimum window holds one message of audio: client and server would wait for each other at every message.
    ("grpc.http2.lookahead_bytes", 1 << 18),
    # Clients ping an idle connection (channel.py); gRPC must not treat up to twice that rate as abuse.
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
    """Runs the services while the block runs, then drains: reports NOT_SERVING, takes no new work, and gives running
    calls `grace_seconds` to finish.

    Each of `addresses` serves all services; each address in `public_addresses` serves only the service it maps to.
    Yields the bound addresses, with the actual port if port 0 was requested.
    Raises FailedPrecondition if an address is taken, or is open to the network without TLS or tokens, or if a file or a
    secret that the settings name can't be used.
    """
    listeners: dict[str, Sequence[Service]] = dict.fromkeys(addresses, services)
    listeners |= {address: [service] for address, service in (public_addresses or {}).items()}
    for address in listeners:
        require_local_or_allowed(address, settings)
    require_local_metrics_or_allowed(settings)
    raise_file_limit()
    credentials = {
        address: None if address.startswith(UNIX_PREFIX) else build_server_credentials(settings)
        for address in listeners
    }
    access = ServerAccess(services, settings)
    health_servicer = HealthServicer()
    load_limit = LoadLimit(settings, [service.full_name for service in services])
    accept_host = WebHosts(settings).accept_host
    async with AsyncExitStack() as endpoints:
        metrics = endpoints.enter_context(metrics_endpoint(settings.metrics_port, settings.metrics_host, accept_host))
        # It answers from before the services start until they have stopped: a probe must not mistake that for death.
        await endpoints.enter_async_context(health_endpoint(health_servicer, settings))
        servers: list[grpc.aio.Server] = []
        started: list[Service] = []
        monitor: asyncio.Task[None] | None = None
        try:
            bound = []
            for address, served in listeners.items():
                secure = credentials[address]
                admission = access.interceptor(
                    requires_tokens=requires_tokens(address, settings), uses_tls=secure is not None
                )
                interceptors = [CallInterceptor(is_measured=metrics is not None), admission, load_limit]
                server = _build_server(served, address, health_servicer, settings, interceptors)
                servers.append(server)
                bound.append(bind(server, address, setting_of(address, settings), secure))
            for service in services:
                started.append(service)
                await service.start()
                if metrics is not None and isinstance(service, MetricsProvider):
                    metrics.register(service.read_metrics)
            for server in servers:
                await server.start()
            health_monitor = HealthMonitor(services, health_servicer)
            await health_monitor.check_all()
            monitor = asyncio.create_task(health_monitor.run())
            log.info("serving", addresses=bound, services=[service.full_name for service in services])
            async with reporting_to_systemd():
                yield bound
        finally:
            if monitor is not None:
                monitor.cancel()
            health_servicer.shut_down()
            await asyncio.gather(load_limit.close(), *(service.drain() for service in started))
            await asyncio.gather(*(server.stop(settings.grace_seconds) for server in servers))
            for service in reversed(started):
                await service.stop()
            await access.close()
            log.info("stopped")


async def serve_until_signalled(
    services: Sequence[Service],
    address: str,
    settings: Settings,
    *,
    public_addresses: Mapping[str, Service] | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, then drains; a second signal ends the process immediately.

    Raises UnrecoverableError after the drain if a service cannot recover, so that a supervisor restarts the process.
    """
    async with stop_signal() as stop, serve_services(services, [address], settings, public_addresses=public_addresses):
        await stop.wait()
        log.info("draining", grace_seconds=settings.grace_seconds)


def _build_server(
    services: Sequence[Service],
    address: str,
    health_servicer: HealthServicer,
    settings: Settings,
    interceptors: Sequence[grpc.aio.ServerInterceptor],
) -> grpc.aio.Server:
    max_streams = max_calls_of_connection(settings, [service.full_name for service in services])
    server = build_server(interceptors, [*SERVER_OPTIONS, *build_transport_options(settings, address, max_streams)])
    for service in services:
        service.add_to(server)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    if settings.reflection if settings.reflection is not None else is_local(address):
        names = [service.full_name for service in services]
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    return server
