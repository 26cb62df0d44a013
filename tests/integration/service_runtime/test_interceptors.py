"""What a client gets if a method raises, and which deadline a downstream call gets."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import grpc
import grpc.aio
import pytest

from dgx_music import errors
from dgx_music.error_status import ErrorDetails, read_error_details
from dgx_music.generation.v1 import generation_pb2 as pb
from service_runtime.rpc import deadlines
from tests.support.log_capture import captured_logs
from tests.support.scripted_service import ScriptedService

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


def raising(error: BaseException) -> Any:
    """A behaviour that raises the error."""

    def behaviour(context: Any) -> None:
        raise error

    return behaviour


async def call_error(stub: Any) -> grpc.aio.AioRpcError:
    """The error of a unary call."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListModels(pb.ListModelsRequest(), timeout=60)
    return caught.value


async def stream_error(stub: Any) -> grpc.aio.AioRpcError:
    """The error of a streaming call."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in stub.Generate(pb.GenerateRequest(), timeout=60):
            pass
    return caught.value


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_service_error_keeps_all_its_details(
    service: ScriptedService, stub: Any, error: errors.ServiceError
) -> None:
    service.behaviour = raising(error)
    for received in (await call_error(stub), await stream_error(stub)):
        failure = read_error_details(received)
        assert failure.code.name == error.code
        assert failure.message == error.message
        assert failure.reason == error.reason
        assert failure.metadata == error.metadata
        assert failure.retry_after_seconds == error.retry_after_seconds
        assert list(failure.violations) == ([error.field] if error.field else [])


async def test_field_violation_does_not_repeat_the_field(service: ScriptedService, stub: Any) -> None:
    service.behaviour = raising(errors.InvalidArgument("prompt", "is empty"))
    error = await call_error(stub)
    assert read_error_details(error).violations == {"prompt": "is empty"}
    assert error.details() == "prompt: is empty"


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_unexpected_error_is_internal_with_a_logged_id_and_no_traceback(
    service: ScriptedService, stub: Any, log_format: str
) -> None:
    service.behaviour = raising(RuntimeError("secret detail"))
    with captured_logs(log_format) as log:
        failure = read_error_details(await call_error(stub))
    assert failure.code is grpc.StatusCode.INTERNAL
    assert "secret" not in failure.message
    assert failure.metadata["error_id"] in failure.message
    (line,) = [line for line in log.getvalue().splitlines() if "unexpected_error" in line]
    assert failure.metadata["error_id"] in line
    assert "secret detail" in log.getvalue()


async def test_downstream_service_error_is_passed_on(service: ScriptedService, stub: Any) -> None:
    rejected = errors.InvalidArgument("prompt", "is empty")

    async def call_downstream(context: Any) -> None:
        service.behaviour = raising(rejected)
        await stub.ListModels(pb.ListModelsRequest(), timeout=60)

    service.behaviour = call_downstream
    failure = read_error_details(await call_error(stub))
    assert (failure.code, failure.message) == (grpc.StatusCode.INVALID_ARGUMENT, rejected.message)
    assert failure.violations == {"prompt": "is empty"}


async def test_downstream_error_without_status_keeps_code_and_message(service: ScriptedService, stub: Any) -> None:
    gone = grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), grpc.aio.Metadata(), "gone")
    service.behaviour = raising(gone)
    assert read_error_details(await call_error(stub)) == ErrorDetails(grpc.StatusCode.NOT_FOUND, "gone")


async def test_abort_by_the_servicer_is_left_alone(service: ScriptedService, stub: Any) -> None:
    async def behaviour(context: Any) -> None:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")

    service.behaviour = behaviour
    assert (await call_error(stub)).code() is grpc.StatusCode.PERMISSION_DENIED


class Decoder:
    """What a method has open while it fails."""


@pytest.mark.parametrize("call", [call_error, stream_error])
@pytest.mark.parametrize("error", [errors.DataLoss("gap", reason="GAP"), ValueError("gap")], ids=["refusal", "bug"])
async def test_failed_call_frees_what_it_used_without_the_garbage_collector(
    service: ScriptedService, stub: Any, call: Any, error: Exception
) -> None:
    decoders = []

    async def decode() -> None:
        decoder = Decoder()
        decoders.append(weakref.ref(decoder))
        raise error

    async def behaviour(context: Any) -> None:
        task = asyncio.create_task(decode())  # It keeps the error, whose traceback has this variable.
        await asyncio.shield(task)

    service.behaviour = behaviour
    gc.disable()
    try:
        await call(stub)
        service.behaviour = lambda context: None
        await stub.ListModels(pb.ListModelsRequest(), timeout=60)  # For the server, the call before has ended too.
        assert [decoder() for decoder in decoders] == [None]
    finally:
        gc.enable()


async def test_error_whose_cause_was_raised_while_it_was_handled_ends_the_call(
    service: ScriptedService, stub: Any
) -> None:
    def behaviour(context: Any) -> None:
        refusal = errors.DataLoss("gap", reason="GAP")
        try:
            raise refusal
        except errors.DataLoss:
            try:
                raise ValueError
            except ValueError as cause:
                refusal.__cause__ = cause  # Whose context is the refusal.
        raise refusal

    service.behaviour = behaviour
    assert (await call_error(stub)).code() is grpc.StatusCode.DATA_LOSS


async def test_cancelled_stream_is_closed_at_once(service: ScriptedService, stub: Any) -> None:
    call = stub.Generate(pb.GenerateRequest(), timeout=60)
    await call.read()
    call.cancel()
    await asyncio.wait_for(service.closed.wait(), 60)


async def test_downstream_call_gets_the_time_that_is_left(service: ScriptedService, stub: Any) -> None:
    seen: list[float] = []
    service.behaviour = lambda context: seen.append(deadlines.time_left(600))
    await stub.ListModels(pb.ListModelsRequest(), timeout=60)
    await stub.ListModels(pb.ListModelsRequest())
    assert 0 < seen[0] < 70  # gRPC rounds the sixty seconds up a little.
    assert seen[1] == 600
