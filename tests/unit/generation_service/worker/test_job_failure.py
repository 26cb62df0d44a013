"""The message that a failed generation keeps, in words of ours."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest

from dgx_music.error_status import PLAIN_MESSAGES
from generation_service.worker.job import _build_failure


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
    failure = _build_failure(error, has_sent_audio=False)
    assert failure.error_message == f"export: {PLAIN_MESSAGES[code]} ({code.name})"
    assert details not in failure.error_message
