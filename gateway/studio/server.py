"""Serves the Studio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.studio.config import StudioSettings
from gateway.studio.repeating.repeat_request import find_access
from gateway.studio.sign_in import HINT, read_key
from gateway.studio.studio_application import build_application
from gateway.web.gateway_clients import GatewayClients
from gateway.web.gateway_health import HealthEndpoint
from gateway.web.server import serve_application
from service_runtime.observability.logging import get_logger
from service_runtime.rpc.binding import requires_tokens
from service_runtime.rpc.probe import probe_credentials
from service_runtime.rpc.web_hosts import WebHosts

log = get_logger(__name__)


@asynccontextmanager
async def serve_studio(gateway_address: str, settings: StudioSettings) -> AsyncIterator[str]:
    """Serves while the block runs, and yields the URL; then gives running requests `grace_seconds` to finish.

    Raises FailedPrecondition if the address can't be bound, or is open to the network without TLS or tokens.
    """
    address = settings.studio_listen
    requires_token = requires_tokens(address, settings)
    clients = GatewayClients(gateway_address, requires_token, kind="studio", read_key=read_key, hint=HINT)
    stopping = asyncio.Event()
    application = build_application(
        clients,
        HealthEndpoint(gateway_address, probe_credentials(settings)),
        access=find_access(gateway_address, settings, is_for_strangers=requires_token),
        requires_token=requires_token,
        stopping=stopping,
        hosts=None if requires_token else WebHosts(settings),
        max_requests=settings.max_concurrent_streams,
    )
    try:
        async with serve_application(application, address, settings, stopping) as url:
            log.info("serving", addresses=[url], gateway=gateway_address)
            yield url
    finally:
        await clients.aclose()
