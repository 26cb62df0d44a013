"""What the worker reports to storage about an attempt that failed."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio

from dgx_music.error_status import read_error_details
from dgx_music.errors import ServiceError, Unavailable
from dgx_music.limits import MAX_CHECKPOINT_BYTES
from dgx_music.storage.v1 import storage_pb2
from generation_service.engine.suspension.sealed_checkpoint import GenerationSuspended
from generation_service.models.base import TooLarge
from generation_service.processes import engine_client
from service_runtime.observability.logging import get_logger
from service_runtime.supervision import UnrecoverableError

log = get_logger(__name__)

RETRYABLE_CODES = frozenset(
    {"ABORTED", "CANCELLED", "DATA_LOSS", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}
)
"""Names of the status codes after which another attempt may succeed."""
RETRYABLE_EXPORT_CODES = RETRYABLE_CODES | {"INTERNAL"}
"""The same after all the audio has been sent: export then keeps it, and the next attempt does not generate it again."""
MAX_FREE_ATTEMPTS = 2
"""Up to this attempt, one that ends because its engine's process does is handed back, since it is rarely the cause.
Later ones count: it may be what kills them."""
MAX_FREE_EXPORT_ATTEMPTS = 10
"""The same of those that end because of an outage of export, or of what it needs. No job is claimed during one that
export has noticed. So further ones are due to what only this job meets, such as an upload that is too slow, or to the
job itself, if export crashes."""
OUTAGE_CODES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""Status codes of export in an outage. CANCELLED comes from a server that stops."""
MAX_RETRY_AFTER_SECONDS = 3600.0
"""The longest delay of another attempt that storage accepts."""


def build_failure(
    error: BaseException, *, has_sent_audio: bool, attempt: int, preempted_by: str = ""
) -> storage_pb2.FailGenerationRequest:
    """Returns the report of a failed attempt: a one-line message for the user, and whether to try again.

    If export has all the audio, another attempt is cheap: it generates nothing. `preempted_by` is the generation for
    which the job was stopped, empty if the server is shutting down.
    """
    delay_seconds, is_free = 0.0, False
    match error:
        case asyncio.CancelledError() | GenerationSuspended():
            reason = "the server is shutting down"
            if preempted_by:
                reason = f"handed back for generation {preempted_by}, which has a higher priority"
            checkpoint = error.checkpoint if isinstance(error, GenerationSuspended) else b""
            return storage_pb2.FailGenerationRequest(
                error_message=reason,
                handed_back=True,
                checkpoint=checkpoint if len(checkpoint) <= MAX_CHECKPOINT_BYTES else b"",
                preempted_by=preempted_by,
            )
        case UnrecoverableError():
            # The engine had already stopped when the job was claimed, so this does not count as an attempt.
            return storage_pb2.FailGenerationRequest(error_message=error.message, handed_back=True)
        case Unavailable(reason=engine_client.ENGINE_UNAVAILABLE):
            # No engine has had the job: all ended between the claim and now.
            return storage_pb2.FailGenerationRequest(error_message=error.message, handed_back=True)
        case Unavailable(reason=engine_client.ENGINE_LOST) if attempt <= MAX_FREE_ATTEMPTS:
            return storage_pb2.FailGenerationRequest(error_message=error.message, handed_back=True)
        case TooLarge():
            # The next attempt would not fit either. A user may retry on a server with more memory.
            message, is_retryable = error.message, False
        case ServiceError():
            message, is_retryable = error.message, error.code in RETRYABLE_CODES
            delay_seconds = error.retry_after_seconds or 0.0
        case grpc.aio.AioRpcError():
            details = read_error_details(error)
            codes = RETRYABLE_EXPORT_CODES if has_sent_audio else RETRYABLE_CODES
            message = f"export: {' '.join(details.message.split())} ({error.code().name})"
            is_retryable, delay_seconds = error.code().name in codes, details.retry_after_seconds or 0.0
            is_free = error.code() in OUTAGE_CODES and attempt <= MAX_FREE_EXPORT_ATTEMPTS
        case _:
            log.error("unexpected_error", exc_info=error)
            message, is_retryable = f"an unexpected error occurred: {type(error).__name__}", False
    return storage_pb2.FailGenerationRequest(
        error_message=message,
        retryable=is_retryable and not is_free,
        handed_back=is_free,
        retry_after_seconds=min(delay_seconds, MAX_RETRY_AFTER_SECONDS) if is_retryable else 0.0,
    )
