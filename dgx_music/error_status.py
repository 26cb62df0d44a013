"""Converts errors to and from `google.rpc.Status` with `ErrorInfo`, `BadRequest` and `RetryInfo` (AIP-193)."""

from __future__ import annotations

from dataclasses import dataclass, field

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2

from dgx_music import errors
from dgx_music.errors import DOMAIN, ServiceError

PLAIN_MESSAGES = {
    grpc.StatusCode.UNAVAILABLE: "lost the connection to the server, or could not connect to it",
    grpc.StatusCode.DEADLINE_EXCEEDED: "the server did not respond in time; it may be overloaded, so try again later",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "the server has too many calls at a time, or the message is too large for it",
    grpc.StatusCode.UNIMPLEMENTED: "the server does not know this call; its version may be another one",
    grpc.StatusCode.CANCELLED: "the call was cancelled",
    grpc.StatusCode.INTERNAL: "the connection to the server broke; try again",
    grpc.StatusCode.UNKNOWN: "the server failed without giving a reason; its log may show one",
}
"""What a status means that gRPC itself has set, as it does with these codes; its own text is about sockets and frames.
https://grpc.github.io/grpc/core/md_doc_statuscodes.html"""

UNWRITABLE_REASONS = ("DISK_FULL", "DATABASE_UNAVAILABLE")
"""The reasons of errors with which storage says that it can't record anything until its disk is repaired."""

CLASSES = {kind.code: kind for kind in ServiceError.__subclasses__() if kind.__module__ == errors.__name__}
"""Status code → the class of its errors. Other codes, such as INTERNAL, are ServiceError itself."""
REASON_CLASSES: dict[str, type[ServiceError]] = {
    "GENERATION_FAILED": errors.GenerationFailed,
    "GENERATION_CANCELLED": errors.GenerationCancelled,
}
"""Reason → the more specific class of its errors."""

DETAILS_KEY = "grpc-status-details-bin"
"""Key of the trailing metadata that carries the status."""


MAX_MESSAGE_BYTES, MAX_VALUE_BYTES = 1000, 500
"""Of a status's message and of one value in the ErrorInfo. gRPC sends the message twice, percent-encoded and in the
details, and gives up a call whose trailing metadata have more than 8 KiB."""


def to_status(error: ServiceError) -> status_pb2.Status:
    """Returns the status that is sent to the caller."""
    message = _shorten(error.message, MAX_MESSAGE_BYTES)
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code), message=message)
    metadata = {name: _shorten(value, MAX_VALUE_BYTES) for name, value in error.metadata.items()}
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))
    if error.field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=message.removeprefix(f"{error.field}: "), reason=error.reason
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after_seconds is not None:
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after_seconds * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def _shorten(text: str, max_bytes: int) -> str:
    encoded = text.encode(errors="replace")
    if len(encoded) <= max_bytes:
        return text
    return encoded[: max_bytes - 3].decode(errors="ignore") + "…"


@dataclass(frozen=True, slots=True)
class ErrorDetails:
    """The details of a failed call, read from its status."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: dict[str, str] = field(default_factory=dict)
    """Path of the request field → what is wrong with it."""
    retry_after_seconds: float | None = None


def read_error_details(error: grpc.aio.AioRpcError) -> ErrorDetails:
    """Returns the details of the error. If it carries no status, e.g. for a lost connection, only code and message.

    The message is then one of PLAIN_MESSAGES, if there is one for the code.
    """
    status = status_of(error)
    reason, metadata, violations, retry_after = "", {}, {}, None
    for detail in status.details if status else ():
        info, request, retry = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.RetryInfo(),
        )
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(request):
            violations = {violation.field: violation.description for violation in request.field_violations}
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    code = error.code()
    message = status.message if status else PLAIN_MESSAGES.get(code, error.details())
    return ErrorDetails(code, message or code.name, reason, metadata, violations, retry_after)


def status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    """Returns the status in the error's trailing metadata, or None if the server sent none."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    return None


def to_exception(error: grpc.aio.AioRpcError) -> ServiceError:
    """Returns the exception that the server raised, of the same class and with the same message and details.

    Where gRPC itself has set the status, its `reason` is empty and its message one of PLAIN_MESSAGES.
    """
    details = read_error_details(error)
    kind = REASON_CLASSES.get(details.reason) or CLASSES.get(details.code.name, ServiceError)
    return kind.received(
        details.message,
        reason=details.reason,
        metadata=details.metadata,
        field=next(iter(details.violations), None),
        retry_after_seconds=details.retry_after_seconds,
    )
