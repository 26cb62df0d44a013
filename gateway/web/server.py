"""Runs a web application by uvicorn: binds, uses TLS if it is configured, limits connections, and drains."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from dgx_music.address import UnixAddress, parse_address
from dgx_music.errors import FailedPrecondition
from gateway.web.limited_protocol import MAX_HEAD_BYTES, ConnectionCount, LimitedProtocol
from gateway.web.tls_context import build_tls_context
from service_runtime.observability.logging import get_logger
from service_runtime.rpc.binding import require_local_or_allowed
from service_runtime.rpc.load.transport_limits import raise_file_limit
from service_runtime.settings import Settings

log = get_logger(__name__)

# It says so of each response that is cut off on purpose; what is not on purpose is in the log of requests.
logging.getLogger("uvicorn.error").addFilter(
    lambda record: record.msg != "ASGI callable returned without completing response."
)

KEEPALIVE_SECONDS = 75
"""How long an idle connection stays open; longer than clients keep theirs, so that none is closed under a request."""


class _Server(uvicorn.Server):
    """Leaves signals to the command that runs it, and tells when it accepts connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.has_started = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.has_started.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serve_application(
    application: ASGIApp, address: str, settings: Settings, stopping: asyncio.Event | None = None
) -> AsyncIterator[str]:
    """Serves the application at `address`, HOST:PORT, while the block runs, and yields the URL; then gives running
    requests `grace_seconds` to finish. Those that would not finish by themselves are told by `stopping`.

    Raises FailedPrecondition if the address can't be bound, or is open to the network without TLS or tokens.
    """
    require_local_or_allowed(address, settings)
    tls_context = build_tls_context(settings) if settings.tls_certificate is not None else None
    raise_file_limit()
    with bind(address) as listener:
        server = _Server(
            uvicorn.Config(
                application,
                http=cast(Any, partial(LimitedProtocol, ConnectionCount(settings.max_connections))),
                ws="none",
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                ssl_context_factory=(lambda config, default: tls_context) if tls_context else None,
                timeout_graceful_shutdown=int(settings.grace_seconds),
                timeout_keep_alive=KEEPALIVE_SECONDS,
                lifespan="off",
                access_log=False,
                log_config=None,
                log_level="warning",
                server_header=False,
            )
        )
        serving = asyncio.create_task(server.serve([listener]))
        try:
            serving.add_done_callback(lambda _: server.has_started.set())
            await server.has_started.wait()
            url = f"{'https' if tls_context else 'http'}://{address.rpartition(':')[0]}:{listener.getsockname()[1]}"
            yield url
        finally:
            server.should_exit = True
            if stopping is not None:
                stopping.set()
            await serving
            log.info("stopped")


def bind(address: str) -> socket.socket:
    """Returns a socket that is bound to HOST:PORT. Raises FailedPrecondition if that can't be."""
    parsed = parse_address(address)
    if isinstance(parsed, UnixAddress):
        raise _cannot_listen(address, "web clients need HOST:PORT")
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            parsed.host, parsed.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # With the protocol named, asyncio sets TCP_NODELAY; without it a response waits 40 ms for an acknowledgement.
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(target)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise _cannot_listen(address, f"{error.strerror or error}; choose another address with --listen") from error
    return listener


def _cannot_listen(address: str, problem: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"cannot listen on {address}: {problem}", reason="ADDRESS_TAKEN", metadata={"address": address}
    )
