"""What every web application wears: a log, limits, and protection from web pages."""

from __future__ import annotations

from starlette.middleware import Middleware

from gateway.web.error_bodies import ErrorBodies
from gateway.web.request_length import OneLengthOnly
from gateway.web.request_limit import RequestLimit
from gateway.web.request_log import RequestLog
from gateway.web.web_pages import OwnHostsOnly
from service_runtime.rpc.web_hosts import WebHosts


def build_middleware(
    errors: ErrorBodies, *, hosts: WebHosts | None, max_requests: int, quiet_below: int = 0
) -> list[Middleware]:
    """Returns it from the outside to the inside. The application answers to `hosts` only; to all if there are none.
    `max_requests` are served at once. Those with a status below `quiet_below` are logged for debugging only."""
    middleware = [
        Middleware(RequestLog, errors=errors, quiet_below=quiet_below),
        Middleware(OneLengthOnly, errors=errors),
        Middleware(RequestLimit, max_requests=max_requests, errors=errors),
    ]
    if hosts is not None:
        middleware.append(Middleware(OwnHostsOnly, hosts=hosts, errors=errors))
    return middleware
