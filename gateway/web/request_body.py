"""Reads the body of a request, within limits of size and time."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from gateway.web.error_bodies import ErrorBodies

MAX_BODY_BYTES = 1 << 20
READ_SECONDS = 30.0
"""How long a body may take to arrive: a caller who never finishes it would keep others out."""


def refuse_other_types(request: Request, errors: ErrorBodies) -> Response | None:
    """Returns the response to a request whose body is not JSON; None if it is.

    This also keeps web pages out: a browser sends JSON to another site only if that allows it, and no server here does.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
        return None
    return errors.for_rejection(415, "the Content-Type must be application/json", "unsupported_media_type")


async def read_body(request: Request, errors: ErrorBodies) -> bytes | Response:
    """Returns the body, or the response to a request whose body is too large or arrives too slowly."""
    try:
        content = await asyncio.wait_for(_read(request), READ_SECONDS)
    except TimeoutError:
        return errors.for_rejection(408, f"the body did not arrive within {READ_SECONDS:g} s", "request_timeout")
    if content is None:
        return errors.for_rejection(413, f"the body must have at most {MAX_BODY_BYTES} bytes", "request_too_large")
    return content


async def _read(request: Request) -> bytes | None:
    """Returns the body; None if it is too large."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MAX_BODY_BYTES:
            return None
    return bytes(content)
