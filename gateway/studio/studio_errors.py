"""Errors as the page reads them: an HTTP status, and a JSON object with all that the gateway says."""

from __future__ import annotations

import math

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from dgx_music.errors import ServiceError

STATUSES: dict[str, int] = {
    "INVALID_ARGUMENT": 400,
    "OUT_OF_RANGE": 416,
    "FAILED_PRECONDITION": 409,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "ABORTED": 503,
    "CANCELLED": 503,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""Status code of gRPC → HTTP status. Any other is 500."""
CODES = {400: "INVALID_ARGUMENT", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 405: "UNIMPLEMENTED"}
"""HTTP status of a request that does not reach the gateway → status code of gRPC. Any other is FAILED_PRECONDITION."""


def describe(error: ServiceError) -> dict[str, object]:
    """Returns the error as the page reads it."""
    return {
        "code": error.code,
        "message": error.message,
        "reason": error.reason,
        "field": error.field,
        "metadata": error.metadata,
        "retry_after_seconds": error.retry_after_seconds,
    }


class StudioErrors:
    """The error bodies of the Studio."""

    def for_error(self, error: ServiceError) -> JSONResponse:
        """Returns the response for an error of the gateway or of a request."""
        headers = {}
        if error.retry_after_seconds is not None:
            headers["retry-after"] = str(max(1, math.ceil(error.retry_after_seconds)))
        return JSONResponse({"error": describe(error)}, STATUSES.get(error.code, 500), headers=headers)

    def for_rejection(self, status: int, message: str, code: str) -> JSONResponse:
        """Returns the response to a request that is refused before it is read."""
        error: dict[str, object] = {
            "code": CODES.get(status, "FAILED_PRECONDITION"),
            "message": message,
            "reason": code.upper(),
            "field": None,
            "metadata": {},
            "retry_after_seconds": None,
        }
        return JSONResponse({"error": error}, status)

    def for_unexpected(self, error_id: str) -> JSONResponse:
        """Returns the response to a request that failed unexpectedly; the log has the error under this id."""
        message = f"an unexpected error occurred; the server's log shows it under error_id {error_id}"
        return self.for_error(ServiceError(message, reason="INTERNAL", metadata={"error_id": error_id}))


ERRORS = StudioErrors()


async def handle_service_error(request: Request, error: Exception) -> JSONResponse:
    """Answers with an error of the gateway or of the request."""
    assert isinstance(error, ServiceError)
    return ERRORS.for_error(error)


async def handle_http_exception(request: Request, error: Exception) -> JSONResponse:
    """Answers with an error of Starlette's own: an unknown path, or another method."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}; see docs/studio.md for the paths"
    response = ERRORS.for_rejection(error.status_code, message, "HTTP_ERROR")
    response.headers.update(error.headers or {})
    return response
