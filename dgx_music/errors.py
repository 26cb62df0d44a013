"""The exceptions that services raise, and what each means to the caller.

    ServiceError
    ├── InvalidArgument      a field of the request is invalid; names the field
    ├── NotFound             the requested object does not exist
    ├── AlreadyExists        an object with this name exists
    ├── Unauthenticated      the caller's token is missing, wrong, expired or revoked
    ├── PermissionDenied     the caller's token lacks the scope that the method requires
    ├── FailedPrecondition   not possible in the current state; says what has to change
    ├── Aborted              superseded by another caller (a stale lease, a newer attempt)
    ├── OutOfRange           past the end of the data
    ├── ResourceExhausted    a limit is reached; says when to retry
    ├── Unavailable          a dependency does not respond; says when to retry
    ├── DeadlineExceeded     the caller's deadline has passed, or can't be met
    └── DataLoss             an audio stream is incomplete or corrupt

Domain code raises these and does not depend on gRPC; `service_runtime.rpc.interceptors` turns each into a
`google.rpc.Status` with `ErrorInfo`, and with `BadRequest` or `RetryInfo` if they apply. Any other exception in a
servicer becomes INTERNAL with an error id, under which the log has the traceback.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

DOMAIN = "dgx-music"
"""The `ErrorInfo.domain` of every error."""


class ServiceError(Exception):
    """An error with a message for the caller: what went wrong, where, and what to do.

    `reason` is a constant in UPPER_SNAKE_CASE that programs can test for; `metadata` holds its details as strings.
    `field` is the path of the request field at fault. `retry_after_seconds` is the delay before a retry may succeed.
    """

    code: ClassVar[str] = "INTERNAL"
    """The name of the `grpc.StatusCode`."""

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        metadata: Mapping[str, str] | None = None,
        field: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.field = field
        self.retry_after_seconds = retry_after_seconds


class InvalidArgument(ServiceError):
    """A field of the request is invalid. `field` is its path in the request, e.g. "requests[2].prompt"."""

    code = "INVALID_ARGUMENT"

    def __init__(self, field: str, problem: str, *, reason: str = "INVALID_FIELD") -> None:
        super().__init__(f"{field}: {problem}", reason=reason, metadata={"field": field}, field=field)
        self.problem = problem


class NotFound(ServiceError):
    """There is no `kind` (e.g. "generation") with this name or id."""

    code = "NOT_FOUND"

    def __init__(self, kind: str, name: str, hint: str = "") -> None:
        super().__init__(
            f"there is no {kind} {name!r}" + (f"; {hint}" if hint else ""),
            reason=f"{kind.upper().replace(' ', '_')}_NOT_FOUND",
            metadata={"kind": kind, "name": name[:200]},
        )


class AlreadyExists(ServiceError):
    """There is an object with this name already."""

    code = "ALREADY_EXISTS"


class Unauthenticated(ServiceError):
    """The caller has not shown who it is: its token is missing, wrong, expired or revoked."""

    code = "UNAUTHENTICATED"


class PermissionDenied(ServiceError):
    """The caller's token lacks the scope that the method requires."""

    code = "PERMISSION_DENIED"


class FailedPrecondition(ServiceError):
    """The call is not possible in the current state of the system."""

    code = "FAILED_PRECONDITION"


class Aborted(ServiceError):
    """Superseded by another caller: a stale lease, or a newer attempt."""

    code = "ABORTED"


class OutOfRange(ServiceError):
    """The position is past the end of the data."""

    code = "OUT_OF_RANGE"


class ResourceExhausted(ServiceError):
    """A limit is reached; `retry_after_seconds` says when to retry."""

    code = "RESOURCE_EXHAUSTED"


class Unavailable(ServiceError):
    """A dependency does not respond; `retry_after_seconds` says when to retry."""

    code = "UNAVAILABLE"


class DeadlineExceeded(ServiceError):
    """The caller's deadline has passed, or can't be met."""

    code = "DEADLINE_EXCEEDED"


class DataLoss(ServiceError):
    """An audio stream has a gap, a repeated chunk, a wrong checksum, or an end that does not match its chunks."""

    code = "DATA_LOSS"
