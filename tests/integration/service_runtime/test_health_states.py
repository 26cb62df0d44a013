"""When a service's health changes, and when it does not: slow checks, slow neighbours and slow watchers."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, suppress
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dgx_music.channel import connect
from dgx_music.errors import Unavailable
from service_runtime.rpc.health import health_monitor
from service_runtime.rpc.health.health_servicer import HealthServicer
from service_runtime.rpc.server import serve_services
from service_runtime.settings import Settings
from tests.support.scripted_service import ScriptedService, serving_channel

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
pytestmark = pytest.mark.usefixtures("fast_health_checks")


class OtherService(ScriptedService):
    """A second service of the same server."""

    full_name = "dgx_music.other.v1.OtherService"

    def add_to(self, server: grpc.aio.Server) -> None:
        """Has no methods."""


def health_of(channel: grpc.aio.Channel, name: str = "") -> Any:
    return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name), timeout=60)


def watch(channel: grpc.aio.Channel, name: str = "") -> Any:
    return health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=name))


class SlowCheck:
    """A health check that answers when it is let go."""

    def __init__(self, service: ScriptedService) -> None:
        self.started, self.release = asyncio.Event(), asyncio.Event()
        service.check = self._check  # type: ignore[method-assign]

    async def _check(self) -> None:
        self.started.set()
        await self.release.wait()


async def test_slow_check_keeps_the_state_until_it_has_lasted(
    service: ScriptedService, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = OtherService()
    async with serve_services([service, other], ["127.0.0.1:0"], settings) as bound, connect(bound[0]) as channel:
        slow = SlowCheck(service)
        await asyncio.wait_for(slow.started.wait(), 60)
        # Another service's check is not delayed by it.
        other.problem = Unavailable("the database is away", reason="AWAY")
        async for answer in watch(channel, other.full_name):
            if answer.status == NOT_SERVING:
                break
        assert (await health_of(channel, service.full_name)).status == SERVING
        slow.release.set()
        other.problem = None
        async for answer in watch(channel):
            if answer.status == SERVING:
                break
        monkeypatch.setattr(health_monitor, "CHECK_TIMEOUT_SECONDS", 0.2)
        slow.release.clear()
        async for answer in watch(channel, service.full_name):
            if answer.status == NOT_SERVING:
                return


async def test_server_is_not_serving_before_all_services_are_checked(
    service: ScriptedService, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its health is published before the first check has ended."""
    monkeypatch.setattr(health_monitor, "HEALTH_PERIOD_SECONDS", 60.0)
    other = OtherService()
    slow = SlowCheck(other)
    address = f"unix:{settings.data_dir}/s"
    async with AsyncExitStack() as stack:
        server = asyncio.create_task(stack.enter_async_context(serve_services([service, other], [address], settings)))
        await asyncio.wait_for(slow.started.wait(), 60)
        async with connect(address) as channel:
            assert (await health_of(channel, service.full_name)).status == SERVING
            assert (await health_of(channel)).status == NOT_SERVING
            slow.release.set()
            await server
            assert (await health_of(channel)).status == SERVING


async def test_two_hundred_watchers_follow_the_health_and_end_with_the_server(
    service: ScriptedService, settings: Settings
) -> None:
    changed = asyncio.Semaphore(0)
    async with AsyncExitStack() as stack:
        settings = settings.model_copy(update={"grace_seconds": 60.0})
        channel = await stack.enter_async_context(connect(f"unix:{settings.data_dir}/s"))
        server = serve_services([service], [f"unix:{settings.data_dir}/s"], settings)
        await server.__aenter__()

        async def follow() -> list[int]:
            seen, call = [], watch(channel)
            with suppress(grpc.aio.AioRpcError):
                async for answer in call:
                    seen.append(answer.status)
                    changed.release()
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
            return seen

        watchers = [asyncio.create_task(follow()) for _ in range(200)]
        async with asyncio.timeout(60):
            for problem in (None, Unavailable("the database is away", reason="AWAY"), None):
                service.problem = problem
                for _ in watchers:
                    await changed.acquire()
            started_at = time.monotonic()
            await server.__aexit__(None, None, None)
            assert time.monotonic() - started_at < 30  # Watchers don't use up the grace.
            assert await asyncio.gather(*watchers) == [[SERVING, NOT_SERVING, SERVING, NOT_SERVING]] * 200


async def test_watcher_that_reads_nothing_delays_neither_states_nor_other_watchers() -> None:
    servicer, context = HealthServicer(), None
    stuck = servicer.Watch(health_pb2.HealthCheckRequest(), context)  # type: ignore[arg-type]
    assert (await anext(stuck)).status == NOT_SERVING
    reading = servicer.Watch(health_pb2.HealthCheckRequest(), context)  # type: ignore[arg-type]
    for is_serving in (False, True, False):
        servicer.publish("", is_serving=is_serving)
        assert (await anext(reading)).status == (SERVING if is_serving else NOT_SERVING)
    await stuck.aclose()
    await reading.aclose()


async def test_unknown_service_is_named(service: ScriptedService, settings: Settings) -> None:
    async with serving_channel(service, settings) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health_of(channel, "no.such.Service")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert service.full_name in str(caught.value.details())
        async for answer in watch(channel, "no.such.Service"):
            assert answer.status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            break
