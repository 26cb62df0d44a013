"""Keeps the page to what it needs, and other sites' pages out of it."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.web.error_bodies import ErrorBodies

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "media-src 'self' blob:",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # What becomes script has to come from js/dom.js: no text from elsewhere can.
        "require-trusted-types-for 'script'",
        "trusted-types dgx-studio",
    )
)
"""The Content-Security-Policy: no inline script or style, and nothing from elsewhere."""
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), usb=()",
}
API = "/api/"
FOREIGN = ("cross-site", "same-site")


class SecurityHeaders:
    """Adds the headers that keep a browser from doing what the page never asks for."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def add_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith(API):
                    headers.setdefault("cache-control", "no-store")
            await send(message)

        await self._app(scope, receive, add_headers if scope["type"] == "http" else send)


class OwnPageOnly:
    """Refuses what a page of another origin asks for: browsers send cookies to the same host on any port.

    A browser says where a request comes from in Origin and in Sec-Fetch-Site, which no page can change.
    """

    def __init__(self, app: ASGIApp, errors: ErrorBodies) -> None:
        self._app, self._errors = app, errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            origin, site = headers.get("origin"), headers.get("sec-fetch-site", "")
            is_foreign = origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
            if is_foreign or (site in FOREIGN and scope["path"].startswith(API)):
                message = "this is for the Studio's own page; open the Studio's address in the browser"
                return await self._errors.for_rejection(403, message, "other_origin")(scope, receive, send)
        return await self._app(scope, receive, send)
