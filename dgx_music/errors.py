"""The one tree of errors that services raise, and what each means to a caller.

    ServiceError
    ├── InvalidArgument      a field of the request is at fault; names it
    ├── NotFound             there is no such thing
    ├── FailedPrecondition   not in the state that things are in; says what would be
    ├── Aborted              somebody else got there first (a stale lease, a newer attempt)
    ├── OutOfRange           past the end of what there is
    ├── ResourceExhausted    full for now; says when to come back
    ├── Unavailable          something needed does not answer; says when to come back
    └── DataLoss             a stream of audio that does not add up

Domain code raises these and knows nothing of gRPC; `service_runtime.rpc.interceptors` turns each into a
`google.rpc.Status` with `ErrorInfo`, and `BadRequest` or `RetryInfo` where they apply. Anything else that escapes a
servicer is INTERNAL with an error id that stands in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

DOMAIN = "dgx-music"
"""The `ErrorInfo.domain` of every error."""


class ServiceError(Exception):
    """What went wrong, where, and what to do, in words for the caller.

    `reason` is a constant in UPPER_SNAKE_CASE for programs; `metadata` its particulars, all strings.
    """

    code: ClassVar[str] = "INTERNAL"
    """Name of the `grpc.StatusCode`."""

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
    """A field of the request is at fault: `field` is its path in the request, e.g. "duration_seconds"."""

    code = "INVALID_ARGUMENT"

    def __init__(self, field: str, problem: str, *, reason: str = "INVALID_FIELD") -> None:
        super().__init__(f"{field}: {problem}", reason=reason, metadata={"field": field}, field=field)
        self.problem = problem


class NotFound(ServiceError):
    """There is no `kind` (e.g. "generation") of this name or id."""

    code = "NOT_FOUND"

    def __init__(self, kind: str, name: str, hint: str = "") -> None:
        super().__init__(
            f"there is no {kind} {name!r}" + (f"; {hint}" if hint else ""),
            reason=f"{kind.upper().replace(' ', '_')}_NOT_FOUND",
            metadata={"kind": kind, "name": name[:200]},
        )


class FailedPrecondition(ServiceError):
    """Not possible in the state that things are in."""

    code = "FAILED_PRECONDITION"


class Aborted(ServiceError):
    """Somebody else got there first; what the caller held is void."""

    code = "ABORTED"


class OutOfRange(ServiceError):
    """Past the end of what there is."""

    code = "OUT_OF_RANGE"


class ResourceExhausted(ServiceError):
    """Full for now; `retry_after_seconds` says when to come back."""

    code = "RESOURCE_EXHAUSTED"


class Unavailable(ServiceError):
    """Something that is needed does not answer; `retry_after_seconds` says when to come back."""

    code = "UNAVAILABLE"


class DataLoss(ServiceError):
    """A stream of audio with a gap, a repeat, a bad checksum or an end that does not add up."""

    code = "DATA_LOSS"
