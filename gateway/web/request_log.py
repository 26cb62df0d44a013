"""A line in the log for each request, and an answer to each that fails unexpectedly or outlives the server."""

from __future__ import annotations

import asyncio
import time
import uuid

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dgx_music.errors import Unavailable
from gateway.web.error_bodies import ErrorBodies
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

SHUTTING_DOWN = Unavailable(
    "the server is shutting down; try again when it is back", reason="SHUTTING_DOWN", retry_after_seconds=1.0
)


class CutOff(Exception):
    """Ends a response that can't go on.

    If its body has begun, the connection is closed without the body's end, by which the caller knows; the reason has
    been logged where it was found. If it has not, the server is shutting down.
    """


class RequestLog:
    """Logs each request, and answers an unexpected error with an id that is in the log."""

    def __init__(self, app: ASGIApp, errors: ErrorBodies, quiet_below: int = 0) -> None:
        """Requests with a status below `quiet_below` are logged for debugging only: a page makes dozens."""
        self._app, self._errors, self._quiet_below = app, errors, quiet_below

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
                await self._errors.for_error(SHUTTING_DOWN)(scope, receive, note_status)
        except ClientDisconnect:
            pass  # Before all of the request had arrived.
        except CutOff:
            if not status:
                await self._errors.for_error(SHUTTING_DOWN)(scope, receive, note_status)
        except Exception as error:
            # If the body has begun, the connection is closed without its end, by which the caller knows.
            error_id = uuid.uuid4().hex[:12]
            log.error("http_request_failed", path=scope["path"], error_id=error_id, exc_info=error)
            if not status:
                await self._errors.for_unexpected(error_id)(scope, receive, note_status)
        finally:
            seconds = round(time.monotonic() - started, 3)
            write = log.debug if 0 < status < self._quiet_below else log.info
            write("http_served", method=scope["method"], path=scope["path"], status=status, seconds=seconds)
        return None
