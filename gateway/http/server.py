"""Serves the HTTP endpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.http.application import build_application
from gateway.http.config import HttpSettings
from gateway.web.gateway_clients import GatewayClients
from gateway.web.gateway_health import HealthEndpoint
from gateway.web.server import serve_application
from service_runtime.observability.logging import get_logger
from service_runtime.rpc.binding import requires_tokens
from service_runtime.rpc.probe import probe_credentials
from service_runtime.rpc.web_hosts import WebHosts

log = get_logger(__name__)


@asynccontextmanager
async def serve_http(gateway_address: str, settings: HttpSettings) -> AsyncIterator[str]:
    """Serves while the block runs, and yields the URL; then gives running requests `grace_seconds` to finish.

    Raises FailedPrecondition if the address can't be bound, or is open to the network without TLS or tokens.
    """
    address = settings.http_listen
    clients = GatewayClients(gateway_address, requires_tokens(address, settings))
    application = build_application(
        clients,
        HealthEndpoint(gateway_address, probe_credentials(settings)),
        hosts=None if requires_tokens(address, settings) else WebHosts(settings),
        max_requests=settings.max_concurrent_streams,
    )
    try:
        async with serve_application(application, address, settings) as url:
            log.info("serving", addresses=[url], gateway=gateway_address)
            yield url
    finally:
        await clients.aclose()
