"""Tells whether the gateway behind a web server can be used."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dgx_music import channel
from dgx_music.credentials import Credentials
from dgx_music.errors import Unavailable
from service_runtime.observability.logging import get_logger
from service_runtime.rpc.health.health_check import require_serving

log = get_logger(__name__)

GATEWAY = "dgx_music.gateway.v1.MusicService"


class HealthEndpoint:
    """Tells whether the gateway can be used, to anyone."""

    def __init__(self, gateway_address: str, credentials: Credentials) -> None:
        self._gateway_address, self._credentials = gateway_address, credentials

    async def get(self, request: Request) -> Response:
        """Answers `GET /health` with 200 or 503."""
        async with channel.connect(self._gateway_address, self._credentials) as gateway_channel:
            try:
                await require_serving(gateway_channel, self._gateway_address, GATEWAY)
            except Unavailable as error:
                log.warning("gateway_unavailable", problem=error.message)  # Its address is nothing for strangers.
                return JSONResponse({"status": "unavailable"}, 503)
        return JSONResponse({"status": "ok"})
