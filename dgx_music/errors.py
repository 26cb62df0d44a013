"""The exceptions that services and the Python client raise, and what each means to the caller.

    ServiceError                   by itself: the server failed unexpectedly; its log has the error_id of the message
    ├── InvalidArgument            a field of the request is invalid; names the field
    ├── NotFound                   the requested object does not exist
    ├── AlreadyExists              an object with this name exists
    ├── Unauthenticated            the caller's token is missing, wrong, expired or revoked
    ├── PermissionDenied           the caller's token lacks the scope that the method requires
    ├── FailedPrecondition         not possible in the current state; says what has to change
    │   ├── GenerationFailed       the generation has failed; says why
    │   └── GenerationCancelled    the generation was cancelled
    ├── Aborted                    superseded by another caller (a stale lease, a newer attempt)
    ├── OutOfRange                 past the end of the data
    ├── ResourceExhausted          a limit is reached; says when to retry
    ├── Unavailable                a dependency does not respond; says when to retry
    │   └── ConnectionLost         no server answers at the address, or the connection to it broke
    ├── DeadlineExceeded           the caller's deadline has passed, or can't be met
    ├── Cancelled                  the server ended the call before it was done
    ├── Unimplemented              the server does not know the call; it is of another version
    └── DataLoss                   an audio stream or a file is incomplete or corrupt

Domain code raises these and does not depend on gRPC; `service_runtime.rpc.call_interceptor` turns each into a
`google.rpc.Status` with `ErrorInfo`, and with `BadRequest` or `RetryInfo` if they apply. Any other exception in a
servicer becomes INTERNAL with an error id, under which the log has the traceback. `dgx_music.error_status` turns a
status back into the same class on the caller's side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

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

    @classmethod
    def received(
        cls,
        message: str,
        *,
        reason: str,
        metadata: Mapping[str, str] | None = None,
        field: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> Self:
        """Returns the error as its caller receives it, whatever the class's own constructor takes."""
        error = cls.__new__(cls, message)
        ServiceError.__init__(
            error, message, reason=reason, metadata=metadata, field=field, retry_after_seconds=retry_after_seconds
        )
        return error


class InvalidArgument(ServiceError):
    """A field of the request is invalid. `field` is its path in the request, e.g. "requests[2].prompt"."""

    code = "INVALID_ARGUMENT"

    def __init__(self, field: str, problem: str, *, reason: str = "INVALID_FIELD") -> None:
        super().__init__(f"{field}: {problem}", reason=reason, metadata={"field": field}, field=field)

    @property
    def problem(self) -> str:
        """What is wrong with the field: the message without the field's name."""
        return self.message.removeprefix(f"{self.field}: ")


class NotFound(ServiceError):
    """There is no `kind` (e.g. "generation") with this name or id, of which at most 200 characters are quoted."""

    code = "NOT_FOUND"

    def __init__(self, kind: str, name: str, hint: str = "") -> None:
        name = name if len(name) <= 200 else f"{name[:200]}…"
        super().__init__(
            f"there is no {kind} {name!r}" + (f"; {hint}" if hint else ""),
            reason=f"{kind.upper().replace(' ', '_')}_NOT_FOUND",
            metadata={"kind": kind, "name": name},
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


class GenerationFailed(FailedPrecondition):
    """The generation has failed, and its result was asked for. `metadata` has its `id` and its `error_message`."""


class GenerationCancelled(FailedPrecondition):
    """The generation was cancelled, and its result was asked for. `metadata` has its `id`."""


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


class ConnectionLost(Unavailable):
    """No server answers at the address, or the connection to it broke. Raised by clients only."""


class DeadlineExceeded(ServiceError):
    """The caller's deadline has passed, or can't be met."""

    code = "DEADLINE_EXCEEDED"


class Cancelled(ServiceError):
    """The server ended the call before it was done, e.g. because it is being stopped."""

    code = "CANCELLED"


class Unimplemented(ServiceError):
    """The server does not know the call; it is probably of another version."""

    code = "UNIMPLEMENTED"


class DataLoss(ServiceError):
    """An audio stream has a gap, a repeated chunk, a wrong checksum, or an end that does not match its chunks; or a
    file is not the one that was recorded."""

    code = "DATA_LOSS"
