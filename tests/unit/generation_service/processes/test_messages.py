"""Errors on their way between processes."""

from __future__ import annotations

import pickle

import pytest

from dgx_music.errors import InvalidArgument, NotFound, ResourceExhausted, ServiceError
from generation_service.models.base import TooLarge
from generation_service.processes.messages import ErrorData


@pytest.mark.parametrize(
    "error",
    [
        TooLarge("duration_seconds", "ask for at most 12 s"),
        InvalidArgument("prompt", "must not be empty"),
        NotFound("model", "x"),
        ResourceExhausted("the queue is full", reason="QUEUE_FULL", metadata={"a": "b"}, retry_after_seconds=3.0),
    ],
    ids=lambda error: type(error).__name__,
)
def test_error_arrives_as_it_was_sent(error: ServiceError) -> None:
    received = pickle.loads(pickle.dumps(ErrorData.of(error))).to_error()
    assert type(received) is type(error)
    assert (received.message, str(received), received.reason) == (error.message, str(error), error.reason)
    assert (received.metadata, received.field) == (error.metadata, error.field)
    assert received.retry_after_seconds == error.retry_after_seconds


def test_other_exceptions_arrive_as_a_failure_of_the_engine() -> None:
    received = ErrorData.of(KeyError("x")).to_error()
    assert (type(received), received.reason) == (ServiceError, "ENGINE_FAILED")
    assert received.message == "the engine failed: KeyError: 'x'"
