"""Calls above the limits of a real server: refused at once with a time to retry, while health and streams go on."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dgx_music.error_status import ErrorDetails, read_error_details
from dgx_music.generation.v1 import generation_pb2 as pb
from dgx_music.generation.v1 import generation_pb2_grpc as rpc
from service_runtime.rpc.load_limit import HEADROOM
from service_runtime.settings import Settings
from tests.support.log_capture import captured_logs
from tests.support.scripted_service import ScriptedService, serving_channel

METHOD = "/dgx_music.generation.v1.GenerationService/ListModels"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_concurrent_calls": 1, "max_concurrent_streams": 1})


class Crowd:
    """Holds each call of the service until `leave` is called."""

    def __init__(self, service: ScriptedService) -> None:
        self._entered, self._left = asyncio.Semaphore(0), asyncio.Event()
        service.behaviour = self._hold

    async def _hold(self, context: Any) -> None:
        self._entered.release()
        await self._left.wait()

    async def enter(self, count: int) -> None:
        async with asyncio.timeout(60):
            for _ in range(count):
                await self._entered.acquire()

    def leave(self) -> None:
        self._left.set()


async def error_of(call: Any) -> ErrorDetails:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return read_error_details(caught.value)


def assert_busy(failure: ErrorDetails, kind: str) -> None:
    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SERVER_BUSY")
    assert failure.metadata["kind"] == kind
    assert failure.retry_after_seconds is not None


async def test_call_above_the_limit_is_refused_but_no_health_check_and_no_stream(
    service: ScriptedService, channel: grpc.aio.Channel, stub: Any
) -> None:
    crowd = Crowd(service)
    calls = [stub.ListModels(pb.ListModelsRequest(), timeout=60) for _ in range(HEADROOM)]
    await crowd.enter(HEADROOM)
    for _ in range(3):
        assert_busy(await error_of(stub.ListModels(pb.ListModelsRequest(), timeout=60)), "calls")
    health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    stream = stub.Generate(pb.GenerateRequest(), timeout=60)
    assert isinstance(await stream.read(), pb.GenerateResponse)
    crowd.leave()
    await asyncio.gather(*calls)
    await stub.ListModels(pb.ListModelsRequest(), timeout=60)


async def test_streams_above_the_limit_are_refused_until_one_is_cancelled(service: ScriptedService, stub: Any) -> None:
    crowd = Crowd(service)
    streams = [stub.Generate(pb.GenerateRequest(), timeout=60) for _ in range(HEADROOM)]
    await crowd.enter(HEADROOM)
    assert_busy(await error_of(stub.Generate(pb.GenerateRequest(), timeout=60).read()), "streams")
    streams[0].cancel()
    await asyncio.wait_for(service.closed.wait(), 60)
    assert isinstance(await stub.Generate(pb.GenerateRequest(), timeout=60).read(), pb.GenerateResponse)
    crowd.leave()


async def test_refusal_does_not_wait_for_the_request(service: ScriptedService, channel: grpc.aio.Channel) -> None:
    crowd = Crowd(service)
    stub = rpc.GenerationServiceStub(channel)
    calls = [stub.ListModels(pb.ListModelsRequest(), timeout=60) for _ in range(HEADROOM)]
    await crowd.enter(HEADROOM)
    without_request = channel.stream_unary(METHOD, response_deserializer=pb.ListModelsResponse.FromString)
    assert_busy(await error_of(without_request(timeout=60)), "calls")
    crowd.leave()
    await asyncio.gather(*calls)


async def test_calls_that_are_opened_before_any_request_is_sent_don_t_exceed_the_limit(
    service: ScriptedService, channel: grpc.aio.Channel, stub: Any
) -> None:
    """All of them pass the check that is made before a request is read."""
    method = channel.stream_unary(METHOD, pb.ListModelsRequest.SerializeToString, pb.ListModelsResponse.FromString)
    calls: list[Any] = [method(timeout=60) for _ in range(3 * HEADROOM)]
    await stub.ListModels(pb.ListModelsRequest(), timeout=60)  # Arrives after them.
    crowd = Crowd(service)
    outcomes = [asyncio.create_task(send_request(call)) for call in calls]
    refused = set[asyncio.Task[None]]()
    async with asyncio.timeout(60):
        while len(refused) < 2 * HEADROOM:
            await asyncio.wait(set(outcomes) - refused, return_when=asyncio.FIRST_COMPLETED)
            refused = {outcome for outcome in outcomes if outcome.done()}
    for outcome in refused:
        error = outcome.exception()
        assert isinstance(error, grpc.aio.AioRpcError)
        assert_busy(read_error_details(error), "calls")
    crowd.leave()
    await asyncio.gather(*(set(outcomes) - refused))


async def send_request(call: Any) -> None:
    await call.write(pb.ListModelsRequest())
    await call.done_writing()
    await call


async def test_refusals_are_logged_once_and_other_rejections_each_time(
    service: ScriptedService, settings: Settings
) -> None:
    with captured_logs("json") as log:
        async with serving_channel(service, settings) as channel:
            stub = rpc.GenerationServiceStub(channel)
            crowd = Crowd(service)
            calls = [stub.GetModel(pb.GetModelRequest(), timeout=60) for _ in range(2)]
            await asyncio.gather(*calls, return_exceptions=True)
            calls = [stub.ListModels(pb.ListModelsRequest(), timeout=60) for _ in range(HEADROOM)]
            await crowd.enter(HEADROOM)
            for _ in range(50):
                await error_of(stub.UnloadModel(pb.UnloadModelRequest(), timeout=60))
            crowd.leave()
            await asyncio.gather(*calls)
    events = [json.loads(line) for line in log.getvalue().splitlines()]
    assert len([event for event in events if event["event"] == "rejected"]) == 1
    assert len([event for event in events if event["event"] == "unexpected_error"]) == 2
