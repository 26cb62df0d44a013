"""Calls above the limits of a real server: they wait for their turn, or are refused at once with a time to retry, while
health and streams go on."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import SecretStr

from dgx_music.channel import connect
from dgx_music.error_status import ErrorDetails, read_error_details
from dgx_music.generation.v1 import generation_pb2 as pb
from dgx_music.generation.v1 import generation_pb2_grpc as rpc
from service_runtime.access.caller import Scope
from service_runtime.rpc.load import load_limit
from service_runtime.rpc.load.load_limit import HEADROOM
from service_runtime.rpc.server import serve_services
from service_runtime.settings import Settings
from tests.support.access_services import SERVICE_TOKEN, TokenRegistry
from tests.support.log_capture import captured_logs
from tests.support.scripted_service import ScriptedService, serving_channel

METHOD = "/dgx_music.generation.v1.GenerationService/ListModels"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_concurrent_calls": 1, "max_concurrent_streams": 1})


@pytest.fixture
def no_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuses every call above the limit. Must come before the fixtures that start a server."""
    monkeypatch.setattr(load_limit, "WAITING_FACTOR", 0)


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
    no_queue: None, service: ScriptedService, channel: grpc.aio.Channel, stub: Any
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


async def test_burst_of_calls_waits_and_succeeds(service: ScriptedService, stub: Any) -> None:
    at_work, most = 0, 0

    async def count(context: Any) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0)
        at_work -= 1

    service.behaviour = count
    burst = HEADROOM * load_limit.WAITING_FACTOR // 2
    await asyncio.gather(*(stub.ListModels(pb.ListModelsRequest(), timeout=60) for _ in range(burst)))
    assert most <= HEADROOM


async def test_calls_that_wait_or_arrive_while_the_server_shuts_down_are_unavailable(
    service: ScriptedService, settings: Settings
) -> None:
    """Also those that have reached the server, but were not accepted by its event loop yet. Its running calls end."""
    crowd = Crowd(service)
    async with AsyncExitStack() as stack:
        async with serve_services([service], ["127.0.0.1:0"], settings) as bound:
            # Clients would repeat a call that was UNAVAILABLE.
            options = [("grpc.enable_retries", 0)]
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(bound[0], options))
            stub: Any = rpc.GenerationServiceStub(channel)
            calls = [stub.ListModels(pb.ListModelsRequest(), timeout=60) for _ in range(HEADROOM)]
            await crowd.enter(HEADROOM)
            late = [stub.ListModels(pb.ListModelsRequest(), timeout=60) for _ in range(40)]
            await asyncio.sleep(0)  # Sends them.
            asyncio.get_running_loop().call_later(0.1, crowd.leave)
        await asyncio.gather(*calls)
        codes = {(await error_of(call)).code for call in late}
        assert codes == {grpc.StatusCode.UNAVAILABLE}


async def test_flood_of_calls_without_a_token_keeps_no_one_else_out(
    service: ScriptedService, settings: Settings
) -> None:
    """Verifying their tokens takes as long as the test wants; meanwhile they have no place, nor wait for one."""
    registry = SlowRegistry()
    settings = settings.model_copy(update={"require_tokens": True, "service_token": SecretStr(SERVICE_TOKEN)})
    async with serve_services([registry, service], ["127.0.0.1:0"], settings) as bound, connect(bound[0]) as channel:
        stub: Any = rpc.GenerationServiceStub(channel)
        wrong = [("authorization", f"Bearer {TokenRegistry().issue(Scope.ADMIN)}")]
        flood = [stub.ListModels(pb.ListModelsRequest(), metadata=wrong, timeout=60) for _ in range(300)]
        await asyncio.wait_for(registry.asked.wait(), 60)
        right = [("authorization", f"Bearer {SERVICE_TOKEN}")]
        await asyncio.gather(
            *(stub.ListModels(pb.ListModelsRequest(), metadata=right, timeout=60) for _ in range(2 * HEADROOM))
        )
        registry.answers.set()
        assert {(await error_of(call)).code for call in flood} == {grpc.StatusCode.UNAUTHENTICATED}


class SlowRegistry(TokenRegistry):
    """Holds each verification until it is told to answer."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.answers = asyncio.Event(), asyncio.Event()

    async def verify_token(self, *arguments: Any) -> Any:
        self.asked.set()
        await self.answers.wait()
        return await super().verify_token(*arguments)


async def test_streams_above_the_limit_are_refused_until_one_is_cancelled(service: ScriptedService, stub: Any) -> None:
    crowd = Crowd(service)
    streams = [stub.Generate(pb.GenerateRequest(), timeout=60) for _ in range(HEADROOM)]
    await crowd.enter(HEADROOM)
    assert_busy(await error_of(stub.Generate(pb.GenerateRequest(), timeout=60).read()), "streams")
    streams[0].cancel()
    await asyncio.wait_for(service.closed.wait(), 60)
    assert isinstance(await stub.Generate(pb.GenerateRequest(), timeout=60).read(), pb.GenerateResponse)
    crowd.leave()


async def test_refusal_does_not_wait_for_the_request(
    no_queue: None, service: ScriptedService, channel: grpc.aio.Channel
) -> None:
    crowd = Crowd(service)
    stub = rpc.GenerationServiceStub(channel)
    calls = [stub.ListModels(pb.ListModelsRequest(), timeout=60) for _ in range(HEADROOM)]
    await crowd.enter(HEADROOM)
    without_request = channel.stream_unary(METHOD, response_deserializer=pb.ListModelsResponse.FromString)
    assert_busy(await error_of(without_request(timeout=60)), "calls")
    crowd.leave()
    await asyncio.gather(*calls)


async def test_calls_that_are_opened_before_any_request_is_sent_don_t_exceed_the_limit(
    no_queue: None, service: ScriptedService, channel: grpc.aio.Channel, stub: Any
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
    no_queue: None, service: ScriptedService, settings: Settings
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
