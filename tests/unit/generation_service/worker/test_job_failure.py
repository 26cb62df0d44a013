"""The message that a failed generation keeps, in words of ours."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest

from dgx_music.error_status import DETAILS_KEY, PLAIN_MESSAGES, to_status
from dgx_music.errors import Cancelled, FailedPrecondition, ResourceExhausted, ServiceError, Unavailable
from generation_service.worker.job_failure import MAX_FREE_EXPORT_ATTEMPTS, build_failure


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: …"),
        (grpc.StatusCode.UNAVAILABLE, "Socket closed"),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2"),
        (grpc.StatusCode.UNKNOWN, "Stream removed"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"),
    ],
)
def test_message_has_nothing_of_grpc(code: grpc.StatusCode, details: str) -> None:
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)
    failure = build_failure(error, has_sent_audio=False, attempt=1)
    assert failure.error_message == f"export: {PLAIN_MESSAGES[code]} ({code.name})"
    assert details not in failure.error_message


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ResourceExhausted("the disk is full", reason="DISK_FULL", retry_after_seconds=60), 60),
        (ResourceExhausted("the disk is full", reason="DISK_FULL", retry_after_seconds=1e6), 3600),
        (Unavailable("the disk failed", reason="LIBRARY_UNAVAILABLE"), 0),
        (FailedPrecondition("no encoder", reason="M4A_NOT_INSTALLED", retry_after_seconds=60), 0),
    ],
)
@pytest.mark.parametrize("is_remote", [False, True])
def test_retry_is_delayed_as_the_error_asks_for(error: ServiceError, expected: float, is_remote: bool) -> None:
    status = grpc.aio.Metadata((DETAILS_KEY, to_status(error).SerializeToString()))
    remote = grpc.aio.AioRpcError(grpc.StatusCode[error.code], grpc.aio.Metadata(), status)
    failure = build_failure(remote if is_remote else error, has_sent_audio=True, attempt=1)
    is_tried_again = failure.retryable or failure.handed_back
    assert (failure.retry_after_seconds, is_tried_again) == (expected, error.code != "FAILED_PRECONDITION")


@pytest.mark.parametrize(
    ("reason", "is_handed_back"), [("ENGINE_LOST", [True, True, False]), ("ENGINE_UNAVAILABLE", [True, True, True])]
)
def test_job_that_its_engine_took_along_is_handed_back_at_first_and_one_that_none_has_had_always(
    reason: str, is_handed_back: list[bool]
) -> None:
    error = Unavailable("the engine process failed: it was killed by SIGKILL", reason=reason, retry_after_seconds=1.0)
    failures = [build_failure(error, has_sent_audio=False, attempt=attempt) for attempt in (1, 2, 3)]
    assert [failure.handed_back for failure in failures] == is_handed_back
    assert [failure.retryable for failure in failures] == [
        not handed_back and reason == "ENGINE_LOST" for handed_back in is_handed_back
    ]


@pytest.mark.parametrize(
    ("error", "is_free"),
    [
        (Unavailable("the object storage failed", reason="OBJECT_STORAGE_UNAVAILABLE", retry_after_seconds=5), True),
        (Unavailable("the library's disk failed", reason="LIBRARY_UNAVAILABLE", retry_after_seconds=5), True),
        (Cancelled("the server ended the call", reason="CANCELLED", retry_after_seconds=5), True),
        (ResourceExhausted("the disk is full", reason="DISK_FULL", retry_after_seconds=5), False),
    ],
)
@pytest.mark.parametrize("has_sent_audio", [False, True])
def test_outage_of_export_counts_no_attempt_unless_only_this_job_meets_it(
    error: ServiceError, is_free: bool, has_sent_audio: bool
) -> None:
    status = grpc.aio.Metadata((DETAILS_KEY, to_status(error).SerializeToString()))
    remote = grpc.aio.AioRpcError(grpc.StatusCode[error.code], grpc.aio.Metadata(), status)
    attempts = 1, MAX_FREE_EXPORT_ATTEMPTS, MAX_FREE_EXPORT_ATTEMPTS + 1
    failures = [build_failure(remote, has_sent_audio=has_sent_audio, attempt=attempt) for attempt in attempts]
    assert [failure.handed_back for failure in failures] == [is_free, is_free, False]
    assert [failure.retryable for failure in failures] == [not is_free, not is_free, True]
    assert {failure.retry_after_seconds for failure in failures} == {5}
