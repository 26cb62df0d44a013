"""The web application: paths, and errors in OpenAI's words."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from dgx_music.errors import ServiceError
from gateway.http.endpoints import ModelEndpoints, MusicEndpoint
from gateway.http.http_errors import OpenAiErrors, handle_http_exception, handle_service_error
from gateway.http.music_request import RequestBody
from gateway.http.request_bodies import (
    AudioGenerateBody,
    MusicBody,
    MusicStreamBody,
    SoundGenerationBody,
    SpeechBody,
)
from gateway.web.gateway_clients import GatewayClients
from gateway.web.gateway_health import HealthEndpoint
from gateway.web.middleware import build_middleware
from gateway.web.request_limit import HEALTH_PATH
from service_runtime.rpc.web_hosts import WebHosts

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
    return Starlette(
        routes=[
            *(Route(path, MusicEndpoint(clients, body), methods=["POST"]) for path, body in MUSIC_PATHS.items()),
            Route("/v1/models", models.get_all),
            Route("/v1/models/{name}", models.get),
            Route(HEALTH_PATH, health.get),
        ],
        middleware=build_middleware(OpenAiErrors(), hosts=hosts, max_requests=max_requests),
        exception_handlers={ServiceError: handle_service_error, HTTPException: handle_http_exception},
    )
