"""The web application: paths, errors, a line in the log for each request, and protection from web pages."""

from __future__ import annotations

import asyncio
import time
import uuid

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dgx_music.errors import ServiceError, Unavailable
from gateway.http.endpoints import HealthEndpoint, ModelEndpoints, MusicEndpoint
from gateway.http.gateway_clients import GatewayClients
from gateway.http.http_errors import handle_http_exception, handle_service_error, internal_error, reject, to_response
from gateway.http.music_request import RequestBody
from gateway.http.request_bodies import (
    AudioGenerateBody,
    MusicBody,
    MusicStreamBody,
    SoundGenerationBody,
    SpeechBody,
)
from gateway.http.request_limit import HEALTH_PATH, RequestLimit
from gateway.http.web_pages import OwnHostsOnly
from service_runtime.observability.logging import get_logger
from service_runtime.rpc.web_hosts import WebHosts

log = get_logger(__name__)

MUSIC_PATHS: dict[str, type[RequestBody]] = {
    "/v1/audio/speech": SpeechBody,
    "/v1/audio/generate": AudioGenerateBody,
    "/v1/sound-generation": SoundGenerationBody,
    "/v1/music": MusicBody,
    "/v1/music/stream": MusicStreamBody,
}
"""Path → the body that it takes."""


def build_application(
    clients: GatewayClients, health: HealthEndpoint, *, hosts: WebHosts | None, max_requests: int = 1024
) -> Starlette:
    """Returns the application. It answers to `hosts` only; to all if there are none. `max_requests` are served at
    once."""
    models = ModelEndpoints(clients)
    middleware = [
        Middleware(RequestLog),
        Middleware(OneLengthOnly),
        Middleware(RequestLimit, max_requests=max_requests),
    ]
    if hosts is not None:
        middleware.append(Middleware(OwnHostsOnly, hosts=hosts))
    return Starlette(
        routes=[
            *(Route(path, MusicEndpoint(clients, body), methods=["POST"]) for path, body in MUSIC_PATHS.items()),
            Route("/v1/models", models.get_all),
            Route("/v1/models/{name}", models.get),
            Route(HEALTH_PATH, health.get),
        ],
        middleware=middleware,
        exception_handlers={ServiceError: handle_service_error, HTTPException: handle_http_exception},
    )


SHUTTING_DOWN = Unavailable(
    "the server is shutting down; try again when it is back", reason="SHUTTING_DOWN", retry_after_seconds=1.0
)


class RequestLog:
    """Logs each request, and answers an unexpected error with an id that is in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status = time.monotonic(), 0

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        except asyncio.CancelledError:
            # The server stops, and the time that it gives to running requests is over.
            if not status:
                await to_response(SHUTTING_DOWN)(scope, receive, note_status)
        except ClientDisconnect:
            pass  # Before all of the request had arrived.
        except Exception as error:
            # If the body has begun, the connection is closed without its end, by which the caller knows.
            error_id = uuid.uuid4().hex[:12]
            log.error("http_request_failed", path=scope["path"], error_id=error_id, exc_info=error)
            if not status:
                await internal_error(error_id)(scope, receive, note_status)
        finally:
            seconds = round(time.monotonic() - started, 3)
            log.info("http_served", method=scope["method"], path=scope["path"], status=status, seconds=seconds)
        return None


class OneLengthOnly:
    """Refuses requests whose end is ambiguous: a proxy may see another request in the rest (RFC 9112, section 6.1)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and {"content-length", "transfer-encoding"} <= set(Headers(scope=scope)):
            response = reject(400, "a request has a Content-Length or a Transfer-Encoding, not both", "two_lengths")
            response.headers["connection"] = "close"
            return await response(scope, receive, send)
        return await self._app(scope, receive, send)
