"""Limits how many requests are served at once, as the gRPC servers limit calls."""

from __future__ import annotations

from contextlib import AsyncExitStack

from starlette.types import ASGIApp, Receive, Scope, Send

from dgx_music.errors import ResourceExhausted
from gateway.web.error_bodies import ErrorBodies
from service_runtime.rpc.load.call_budget import Budget

HEALTH_PATH = "/health"


class RequestLimit:
    """Refuses requests that are too many, or too many of one host, before they are read. Health is told all the
    same."""

    def __init__(self, app: ASGIApp, max_requests: int, errors: ErrorBodies) -> None:
        self._app, self._errors = app, errors
        self._budget = Budget("http", "requests", max_requests, max_waiting=0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == HEALTH_PATH:
            return await self._app(scope, receive, send)
        client = scope.get("client")
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._budget.occupy(client[0] if client else ""))
            except ResourceExhausted as error:
                return await self._errors.for_error(error)(scope, receive, send)
            return await self._app(scope, receive, send)
