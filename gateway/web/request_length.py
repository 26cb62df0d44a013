"""Refuses requests whose end is ambiguous."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.web.error_bodies import ErrorBodies


class OneLengthOnly:
    """Refuses requests with two lengths: a proxy may see another request in the rest (RFC 9112, section 6.1)."""

    def __init__(self, app: ASGIApp, errors: ErrorBodies) -> None:
        self._app, self._errors = app, errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and {"content-length", "transfer-encoding"} <= set(Headers(scope=scope)):
            message = "a request has a Content-Length or a Transfer-Encoding, not both"
            response = self._errors.for_rejection(400, message, "two_lengths")
            response.headers["connection"] = "close"
            return await response(scope, receive, send)
        return await self._app(scope, receive, send)
