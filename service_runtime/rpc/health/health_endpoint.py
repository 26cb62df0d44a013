"""An address that serves health alone and without TLS, for probes that know none: those of Kubernetes's kubelet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from grpc_health.v1 import health_pb2_grpc

from service_runtime.observability.logging import get_logger
from service_runtime.rpc.binding import bind, require_address
from service_runtime.rpc.call_interceptor import CallInterceptor
from service_runtime.rpc.health.health_servicer import HealthServicer
from service_runtime.rpc.load.accepting_server import build_server
from service_runtime.rpc.load.transport_limits import build_transport_options
from service_runtime.settings import Settings

log = get_logger(__name__)

VARIABLE = "DGX_MUSIC_HEALTH_LISTEN"
MAX_STREAMS = 16
"""Calls at once of one connection. A probe makes one."""


@asynccontextmanager
async def health_endpoint(servicer: HealthServicer, settings: Settings) -> AsyncIterator[None]:
    """Serves health at the address `health_listen`, if that is set, while the block runs. It tells states and nothing
    else, so that it may be open to the network.

    Raises FailedPrecondition if the server can't listen there.
    """
    if settings.health_listen is None:
        yield
        return
    require_address(settings.health_listen, VARIABLE)
    options = [("grpc.so_reuseport", 0), *build_transport_options(settings, settings.health_listen, MAX_STREAMS)]
    server = build_server([CallInterceptor(is_measured=False)], options)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    address = bind(server, settings.health_listen, VARIABLE)
    await server.start()
    log.info("serving_health", address=address)
    try:
        yield
    finally:
        await server.stop(None)
