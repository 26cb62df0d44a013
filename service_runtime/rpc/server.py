"""The one way to run a server: bind, tell the truth about health, serve, drain, end."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from dgx_music.channel import KEEPALIVE_SECONDS
from dgx_music.errors import FailedPrecondition, Lost
from service_runtime.observability.logging import Observer, get_logger, metrics_endpoint
from service_runtime.rpc.interceptors import CallInterceptor
from service_runtime.rpc.service import Measured, Service
from service_runtime.settings import Settings

log = get_logger(__name__)

HEALTH_PERIOD_SECONDS = 2.0
"""How often each service is checked; also how long a check may take."""
RECOVERY_PERIOD_SECONDS = 0.25
"""How often while one is not well: servers that are started together should not wait for each other's next turn."""

UNIX_PREFIX = "unix:"

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

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


class _Stop(asyncio.Event):
    """Set when the process is to end."""

    reason: Lost | None = None
    """What it ends of; None: it was told to."""


_stop: ContextVar[_Stop | None] = ContextVar("_stop", default=None)
"""Of the `stop_signal` that the servers started inside it belong to."""


@asynccontextmanager
async def running(
    services: Sequence[Service],
    addresses: Sequence[str],
    settings: Settings,
    *,
    faces: Mapping[str, Service] | None = None,
) -> AsyncIterator[list[str]]:
    """Runs the services while the block runs, then drains: health NOT_SERVING, no new work, running calls ended within
    the grace.

    All services can be called at each of `addresses`; at each address of `faces`, its one service alone.
    Gives the addresses bound, with the real port where 0 was asked for.
    Raises FailedPrecondition where an address is taken, or open to a network without TLS.
    """
    listeners: dict[str, Sequence[Service]] = dict.fromkeys(addresses, services)
    listeners |= {address: [service] for address, service in (faces or {}).items()}
    for address in listeners:
        _refuse_open_address(address, settings)
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
                bound.append(_bind(server, address))
            for service in services:
                started.append(service)
                await service.start()
                if observer is not None and isinstance(service, Measured):
                    observer.watch(service.measure)
            for server in servers:
                await server.start()
            healthy: dict[str, bool] = {}
            for service in services:
                await _check(service, health_servicer, healthy)
            monitor = asyncio.create_task(_monitor(services, health_servicer, healthy))
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
    services: Sequence[Service], address: str, settings: Settings, *, faces: Mapping[str, Service] | None = None
) -> None:
    """Serves until SIGTERM or SIGINT, then drains; a second signal ends the process at once.

    Raises Lost, after the drain, where a service has lost what it needs for good: a supervisor starts the process anew.
    """
    async with stop_signal() as stop, running(services, [address], settings, faces=faces):
        await stop.wait()
        log.info("draining", grace_seconds=settings.grace_seconds)


@asynccontextmanager
async def stop_signal() -> AsyncIterator[asyncio.Event]:
    """An event that the first SIGTERM or SIGINT sets; the second ends the process at once, with 128 + its number.

    A service started inside that is Lost sets it as well; the error is raised at the end.
    """
    loop, stop = asyncio.get_running_loop(), _Stop()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    before = _stop.set(stop)
    try:
        yield stop
    finally:
        _stop.reset(before)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    if stop.reason is not None:
        raise stop.reason


def is_local(address: str) -> bool:
    """Whether only this machine can reach the address: a Unix socket or a loopback host."""
    if address.startswith(UNIX_PREFIX):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _refuse_open_address(address: str, settings: Settings) -> None:
    if not is_local(address) and not settings.allow_insecure_listen:
        raise FailedPrecondition(
            f"{address} can be reached from the network, and this server has no TLS: "
            "bind to 127.0.0.1 or a Unix socket, "
            "or set DGX_MUSIC_ALLOW_INSECURE_LISTEN=true where the network itself is trusted",
            reason="INSECURE_LISTEN",
            metadata={"address": address},
        )


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


def _bind(server: grpc.aio.Server, address: str) -> str:
    if address.startswith(UNIX_PREFIX) and _answers(address.removeprefix(UNIX_PREFIX)):
        raise _address_taken(address)  # gRPC would unlink the other server's socket and take its place.
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise _address_taken(address) from error
    if address.startswith(UNIX_PREFIX):
        return address
    host, _, asked = address.rpartition(":")
    if asked not in ("0", str(port)):
        raise _address_taken(address)  # gRPC takes 65537 for 1.
    return f"{host}:{port}"


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


def _address_taken(address: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"can't listen on {address}: another server has it, or it is no address of this machine; "
        "stop that server, or choose another address by DGX_MUSIC_<SERVICE>_ADDRESS",
        reason="ADDRESS_TAKEN",
        metadata={"address": address},
    )


async def _monitor(
    services: Sequence[Service], health_servicer: health.aio.HealthServicer, healthy: dict[str, bool]
) -> None:
    while True:
        await asyncio.sleep(HEALTH_PERIOD_SECONDS if all(healthy.values()) else RECOVERY_PERIOD_SECONDS)
        for service in services:
            await _check(service, health_servicer, healthy)


async def _check(service: Service, health_servicer: health.aio.HealthServicer, healthy: dict[str, bool]) -> None:
    """Asks the service whether it can work, and tells health; the server as a whole ("") works when all of them do."""
    try:
        async with asyncio.timeout(HEALTH_PERIOD_SECONDS):  # Python 3.11's wait_for may swallow a cancellation.
            await service.check()
        now = True
    except Exception as error:  # Whatever keeps it from answering is what NOT_SERVING means.
        now = False
        if isinstance(error, Lost) and (stop := _stop.get()) is not None:
            stop.reason = error
            stop.set()
        if healthy.get(service.full_name) is not False:
            log.warning("not serving", service=service.full_name, error=str(error) or type(error).__name__)
    if now and healthy.get(service.full_name) is False:
        log.info("serving again", service=service.full_name)
    healthy[service.full_name] = now
    await health_servicer.set(service.full_name, SERVING if now else NOT_SERVING)
    await health_servicer.set("", SERVING if all(healthy.values()) else NOT_SERVING)
