"""Every error a service raises reaches the caller with its code, reason, field and retry time."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog

from dgx_music import errors
from dgx_music.generation.v1 import generation_pb2 as pb
from dgx_music.status import Failure, read_failure
from service_runtime.observability.logging import configure_logging, get_logger
from service_runtime.rpc import deadlines

ERRORS = [
    errors.FailedPrecondition("not now", reason="NOT_NOW", metadata={"state": "x"}),
    errors.Aborted("stale", reason="STALE"),
    errors.OutOfRange("past the end", reason="PAST_END"),
    errors.ResourceExhausted("full", reason="FULL", retry_after_seconds=1.5),
    errors.Unavailable("away", reason="AWAY", retry_after_seconds=2),
    errors.DataLoss("gap", reason="GAP"),
    errors.NotFound("generation", "abc", "list them"),
    errors.InvalidArgument("prompt", "is empty"),
]


def raiser(error: BaseException) -> Any:
    def behaviour(context: Any) -> None:
        raise error

    return behaviour


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_a_service_error_arrives_whole(probe: Any, stub: Any, error: errors.ServiceError) -> None:
    probe.behaviour = raiser(error)
    with pytest.raises(grpc.aio.AioRpcError) as unary:
        await stub.ListModels(pb.ListModelsRequest(), timeout=60)
    with pytest.raises(grpc.aio.AioRpcError) as stream:
        async for _ in stub.Generate(pb.GenerateRequest(), timeout=60):
            pass
    for caught in (unary, stream):
        failure = read_failure(caught.value)
        assert failure.code.name == error.code
        assert failure.message == error.message
        assert failure.reason == error.reason
        assert failure.metadata == error.metadata
        assert failure.retry_after_seconds == error.retry_after_seconds
        assert list(failure.violations) == ([error.field] if error.field else [])


async def test_a_field_violation_says_what_is_wrong_without_the_field_twice(probe: Any, stub: Any) -> None:
    probe.behaviour = raiser(errors.InvalidArgument("prompt", "is empty"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListModels(pb.ListModelsRequest(), timeout=60)
    assert read_failure(caught.value).violations == {"prompt": "is empty"}
    assert caught.value.details() == "prompt: is empty"


@pytest.fixture(params=["json", "console"])
def logged(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """What is logged while the test runs."""
    stream = io.StringIO()
    configure_logging("info", request.param, stream)
    yield stream
    structlog.reset_defaults()
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)


def test_a_log_line_carries_the_generation(logged: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(generation_id="g1"):
        get_logger("test").info("event", frames=7)
        get_logger("test").debug("too fine")
        logging.getLogger("library").warning("from a library")
    lines = logged.getvalue().splitlines()
    assert len(lines) == 2
    assert all("g1" in line for line in lines)


async def test_an_unforeseen_error_is_internal_with_an_id_and_no_trace(
    logged: io.StringIO, probe: Any, stub: Any
) -> None:
    probe.behaviour = raiser(RuntimeError("secret detail"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListModels(pb.ListModelsRequest(), timeout=60)
    failure = read_failure(caught.value)
    assert failure.code is grpc.StatusCode.INTERNAL
    assert "secret" not in failure.message
    assert failure.metadata["error_id"] in failure.message
    (line,) = [line for line in logged.getvalue().splitlines() if "unforeseen error" in line]
    assert failure.metadata["error_id"] in line
    assert "secret detail" in logged.getvalue()


async def test_what_another_service_refused_is_refused_in_its_words(probe: Any, stub: Any) -> None:
    refused = errors.InvalidArgument("prompt", "is empty")

    async def downstream(context: Any) -> None:
        probe.behaviour = raiser(refused)
        await stub.ListModels(pb.ListModelsRequest(), timeout=60)

    probe.behaviour = downstream
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListModels(pb.ListModelsRequest(), timeout=60)
    failure = read_failure(caught.value)
    assert (failure.code, failure.message) == (grpc.StatusCode.INVALID_ARGUMENT, refused.message)
    assert failure.violations == {"prompt": "is empty"}


async def test_a_downstream_error_without_a_status_keeps_code_and_words(probe: Any, stub: Any) -> None:
    gone = grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), grpc.aio.Metadata(), "gone")
    probe.behaviour = raiser(gone)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListModels(pb.ListModelsRequest(), timeout=60)
    assert read_failure(caught.value) == Failure(grpc.StatusCode.NOT_FOUND, "gone")


async def test_a_servicer_that_aborts_by_itself_is_left_alone(probe: Any, stub: Any) -> None:
    async def behaviour(context: Any) -> None:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")

    probe.behaviour = behaviour
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListModels(pb.ListModelsRequest(), timeout=60)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_stream_whose_caller_goes_away_is_closed_at_once(probe: Any, stub: Any) -> None:
    call = stub.Generate(pb.GenerateRequest(), timeout=60)
    await call.read()
    call.cancel()
    await asyncio.wait_for(probe.closed.wait(), 60)


async def test_a_downstream_call_gets_the_time_that_is_left(probe: Any, stub: Any) -> None:
    seen: list[float] = []
    probe.behaviour = lambda context: seen.append(deadlines.time_left(600))
    await stub.ListModels(pb.ListModelsRequest(), timeout=60)
    await stub.ListModels(pb.ListModelsRequest())
    assert 0 < seen[0] < 70  # gRPC rounds the sixty seconds up a little.
    assert seen[1] == 600


async def test_a_deadline_that_passed_leaves_no_time() -> None:
    deadlines.set_deadline(-1)
    assert deadlines.time_left(60) == 0
