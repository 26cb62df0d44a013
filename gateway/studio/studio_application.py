"""The Studio's web application: its paths, and what protects them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from dgx_music.errors import ServiceError
from gateway.studio.archives.part_files import MidiFile, StemArchive
from gateway.studio.archives.session_archive import SessionArchive
from gateway.studio.clip_reception import ClipReception
from gateway.studio.event_stream import EventStream
from gateway.studio.finished_file import FinishedFile
from gateway.studio.live_audio import LiveAudio
from gateway.studio.method_calls import MethodCalls
from gateway.studio.page_security import OwnPageOnly, SecurityHeaders
from gateway.studio.repeating.repeat_commands import RepeatCommands
from gateway.studio.repeating.repeat_request import GatewayAccess
from gateway.studio.sign_in import SignIn
from gateway.studio.studio_errors import ERRORS, handle_http_exception, handle_service_error
from gateway.web.gateway_clients import GatewayClients
from gateway.web.gateway_health import HealthEndpoint
from gateway.web.middleware import build_middleware
from gateway.web.request_limit import HEALTH_PATH
from service_runtime.rpc.web_hosts import WebHosts

PAGE = Path(__file__).with_name("page")
ALWAYS_CHECK = {"cache-control": "no-cache"}
"""A browser keeps the page, but asks whether it is still the same: another version may be installed."""


def build_application(
    clients: GatewayClients,
    health: HealthEndpoint,
    *,
    access: GatewayAccess,
    requires_token: bool,
    stopping: asyncio.Event,
    hosts: WebHosts | None,
    max_requests: int = 1024,
) -> Starlette:
    """Returns the application. It answers to `hosts` only; to all if there are none. `max_requests` are served at
    once. `access` is how the user's own commands reach the gateway. `stopping` is set when the server stops."""

    async def page(request: Request) -> Response:
        return FileResponse(PAGE / "index.html", headers=ALWAYS_CHECK)

    sign_in = SignIn(clients, requires_token=requires_token)
    application = Starlette(
        routes=[
            Route("/", page),
            Mount("/static", _PageFiles(directory=PAGE)),
            Route("/api/studio", sign_in.describe),
            Route("/api/sign-in", sign_in.sign_in, methods=["POST"]),
            Route("/api/sign-out", sign_in.sign_out, methods=["POST"]),
            Route("/api/clips", ClipReception(clients), methods=["POST"]),
            Route("/api/events", EventStream(clients, stopping), methods=["GET"]),
            Route("/api/generations/{id}/events", EventStream(clients, stopping), methods=["GET"]),
            Route("/api/generations/{id}/live", LiveAudio(clients, stopping), methods=["GET"]),
            Route("/api/generations/{id}/file", FinishedFile(clients), methods=["GET", "HEAD"]),
            Route("/api/generations/{id}/midi", MidiFile(clients), methods=["GET"]),
            Route("/api/generations/{id}/stems", StemArchive(clients), methods=["GET"]),
            Route("/api/generations/{id}/commands", RepeatCommands(clients, access).get),
            Route("/api/session", SessionArchive(clients), methods=["GET"]),
            Route("/api/{method}", MethodCalls(clients), methods=["POST"]),
            Route(HEALTH_PATH, health.get),
        ],
        middleware=[
            Middleware(SecurityHeaders),
            *build_middleware(ERRORS, hosts=hosts, max_requests=max_requests, quiet_below=400),
            Middleware(OwnPageOnly, errors=ERRORS),
        ],
        exception_handlers={ServiceError: handle_service_error, HTTPException: handle_http_exception},
    )
    application.router.redirect_slashes = False
    return application


class _PageFiles(StaticFiles):
    def file_response(self, *arguments: object, **keywords: object) -> Response:
        response = super().file_response(*arguments, **keywords)  # type: ignore[arg-type]
        response.headers.update(ALWAYS_CHECK)
        return response
