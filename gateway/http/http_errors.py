"""Errors as OpenAI's clients read them: a status and a JSON object `error` with message, type, param and code."""

from __future__ import annotations

import math

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from dgx_music.errors import (
    GenerationCancelled,
    GenerationFailed,
    InvalidArgument,
    ResourceExhausted,
    ServiceError,
)

INVALID_REQUEST, SERVER_ERROR = "invalid_request_error", "server_error"

STATUSES: dict[str, tuple[int, str]] = {
    "INVALID_ARGUMENT": (400, INVALID_REQUEST),
    "OUT_OF_RANGE": (400, INVALID_REQUEST),
    "FAILED_PRECONDITION": (400, INVALID_REQUEST),
    "UNAUTHENTICATED": (401, "authentication_error"),
    "PERMISSION_DENIED": (403, "permission_error"),
    "NOT_FOUND": (404, INVALID_REQUEST),
    "ALREADY_EXISTS": (409, INVALID_REQUEST),
    "RESOURCE_EXHAUSTED": (429, "rate_limit_error"),
    "ABORTED": (503, SERVER_ERROR),
    "CANCELLED": (503, SERVER_ERROR),
    "UNAVAILABLE": (503, SERVER_ERROR),
    "DEADLINE_EXCEEDED": (504, SERVER_ERROR),
}
"""Status code of gRPC → HTTP status and OpenAI's type. Any other is 500."""
MODEL_NOT_FOUND = "model_not_found"
GONE = 410
"""For a generation that someone has cancelled: clients repeat a request by themselves after most other errors."""
RETRYABLE_STATUSES = (429, 503)


def to_response(error: ServiceError) -> JSONResponse:
    """Returns the response for an error of the gateway or of a request."""
    status, kind = STATUSES.get(error.code, (500, SERVER_ERROR))
    code, param = error.reason.lower() or None, None
    match error:
        case GenerationFailed():
            status, kind = 500, SERVER_ERROR
        case ResourceExhausted(reason="SERVER_BUSY"):
            status, kind = 503, SERVER_ERROR
        case GenerationCancelled():
            status = GONE
        case InvalidArgument(reason="UNKNOWN_MODEL"):
            status, code, param = 404, MODEL_NOT_FOUND, error.field
        case InvalidArgument():
            param = error.field
    headers = {}
    if error.retry_after_seconds is not None and status in RETRYABLE_STATUSES:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_seconds)))
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return _response(status, error.message, kind, param, code, headers)


async def handle_service_error(request: Request, error: Exception) -> JSONResponse:
    """Answers with an error of the gateway or of the request."""
    assert isinstance(error, ServiceError)
    return to_response(error)


async def handle_http_exception(request: Request, error: Exception) -> JSONResponse:
    """Answers with an error of Starlette's own: an unknown path, or another method."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}; see docs/http.md for the paths"
    return _response(error.status_code, message, INVALID_REQUEST, None, None, dict(error.headers or {}))


class OpenAiErrors:
    """The error bodies of the HTTP endpoints."""

    def for_error(self, error: ServiceError) -> JSONResponse:
        """Returns the response for an error of the gateway or of a request."""
        return to_response(error)

    def for_rejection(self, status: int, message: str, code: str) -> JSONResponse:
        """Returns the response to a request that is refused before it is read."""
        return _response(status, message, INVALID_REQUEST, None, code, {})

    def for_unexpected(self, error_id: str) -> JSONResponse:
        """Returns the response to a request that failed unexpectedly; the log has the error under this id."""
        message = f"an unexpected error occurred; the server's log shows it under error_id {error_id}"
        return _response(500, message, SERVER_ERROR, None, "internal", {})


def _response(
    status: int, message: str, kind: str, param: str | None, code: str | None, headers: dict[str, str]
) -> JSONResponse:
    return JSONResponse(
        {"error": {"message": message, "type": kind, "param": param, "code": code}}, status, headers=headers
    )
