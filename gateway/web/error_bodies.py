"""How a web server words its errors: each has bodies of its own, and the middleware they share asks for them."""

from __future__ import annotations

from typing import Protocol

from starlette.responses import Response

from dgx_music.errors import ServiceError


class ErrorBodies(Protocol):
    """Writes errors in the words of one application."""

    def for_error(self, error: ServiceError) -> Response:
        """Returns the response for an error of the gateway or of a request."""

    def for_rejection(self, status: int, message: str, code: str) -> Response:
        """Returns the response to a request that is refused before it is read; `code` names the reason."""

    def for_unexpected(self, error_id: str) -> Response:
        """Returns the response to a request that failed unexpectedly; the log has the error under this id."""
