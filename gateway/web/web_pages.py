"""Keeps out web pages that are not the user's own."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.web.error_bodies import ErrorBodies
from service_runtime.rpc.web_hosts import WebHosts


class OwnHostsOnly:
    """Refuses requests to another host name, and those of pages of another host.

    Not needed where every request must show a token, which pages don't have.
    """

    def __init__(self, app: ASGIApp, hosts: WebHosts, errors: ErrorBodies) -> None:
        self._app, self._hosts, self._errors = app, hosts, errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host, origin = headers.get("host", ""), headers.get("origin")
            if not self._hosts.accept_host(host):
                response = self._errors.for_rejection(421, self._hosts.explain(host), "wrong_host")
                return await response(scope, receive, send)
            if origin is not None and not self._hosts.accept_origin(origin):
                response = self._errors.for_rejection(403, self._hosts.explain(origin), "wrong_origin")
                return await response(scope, receive, send)
        return await self._app(scope, receive, send)
