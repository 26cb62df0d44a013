"""Errors in the form that OpenAI's clients read."""

from __future__ import annotations

import json

import pytest

from dgx_music.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    GenerationCancelled,
    GenerationFailed,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    ServiceError,
    Unauthenticated,
    Unavailable,
)
from gateway.http.http_errors import to_response


@pytest.mark.parametrize(
    ("error", "status", "kind", "code", "param"),
    [
        (InvalidArgument("seed", "is bad"), 400, "invalid_request_error", "invalid_field", "seed"),
        (
            InvalidArgument("model", "no", reason="UNKNOWN_MODEL"),
            404,
            "invalid_request_error",
            "model_not_found",
            "model",
        ),
        (FailedPrecondition("no", reason="NO_M4A"), 400, "invalid_request_error", "no_m4a", None),
        (Unauthenticated("no", reason="TOKEN_INVALID"), 401, "authentication_error", "token_invalid", None),
        (PermissionDenied("no", reason="SCOPE"), 403, "permission_error", "scope", None),
        (NotFound("model", "x"), 404, "invalid_request_error", "model_not_found", None),
        (ResourceExhausted("no", reason="QUOTA"), 429, "rate_limit_error", "quota", None),
        (Unavailable("no", reason="GONE"), 503, "server_error", "gone", None),
        (DeadlineExceeded("no", reason="LATE"), 504, "server_error", "late", None),
        (GenerationFailed("no", reason="GENERATION_FAILED"), 500, "server_error", "generation_failed", None),
        (
            GenerationCancelled("no", reason="GENERATION_CANCELLED"),
            410,
            "invalid_request_error",
            "generation_cancelled",
            None,
        ),
        (ServiceError("no", reason=""), 500, "server_error", None, None),
    ],
)
def test_status_and_fields(error: ServiceError, status: int, kind: str, code: str | None, param: str | None) -> None:
    response = to_response(error)
    assert response.status_code == status
    assert json.loads(response.body) == {
        "error": {"message": error.message, "type": kind, "param": param, "code": code}
    }


@pytest.mark.parametrize(("seconds", "header"), [(0.2, "1"), (12.4, "13"), (None, None)])
def test_delay_before_a_retry_is_in_whole_seconds(seconds: float | None, header: str | None) -> None:
    error = ResourceExhausted("the queue is full", reason="BACKLOG", retry_after_seconds=seconds)
    assert to_response(error).headers.get("retry-after") == header
