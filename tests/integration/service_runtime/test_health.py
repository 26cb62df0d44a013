"""The health service, and the probe that reads it."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dgx_music.errors import Unavailable
from service_runtime.rpc.probe import probe
from service_runtime.rpc.server import serve_services, serve_until_signalled
from service_runtime.settings import Settings
from service_runtime.supervision import UnrecoverableError
from tests.support.processes import free_ports
from tests.support.scripted_service import ScriptedService, serving_channel

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.usefixtures("fast_health_checks")
async def test_health_follows_the_checks_of_a_service(service: ScriptedService, channel: grpc.aio.Channel) -> None:
    for name in (service.full_name, ""):
        service.problem = None
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=name), timeout=60)
        await wait_for_status(watch, SERVING)
        service.problem = Unavailable("the database is away", reason="AWAY")
        await wait_for_status(watch, NOT_SERVING)
        service.problem = None
        await wait_for_status(watch, SERVING)
        watch.cancel()


@pytest.mark.usefixtures("fast_health_checks")
async def test_check_that_hangs_is_not_serving(service: ScriptedService, settings: Settings) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    service.check = hang  # type: ignore[method-assign]
    async with serving_channel(service, settings) as channel:
        assert await status_of_server(channel) == NOT_SERVING


async def test_probe_names_the_problem(service: ScriptedService, settings: Settings) -> None:
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    assert await probe(address) == f"no server listens at {address}"
    assert await probe("127.0.0.1") == "the address 127.0.0.1 must have a port; use 127.0.0.1:50050"
    async with serve_services([service], [address], settings):
        assert await probe(address) is None
    service.problem = Unavailable("the database is away", reason="AWAY")
    async with serve_services([service], [address], settings):
        assert "is NOT_SERVING" in str(await probe(address))


@pytest.mark.usefixtures("fast_health_checks")
async def test_unrecoverable_service_stops_the_server_with_its_error(
    service: ScriptedService, settings: Settings
) -> None:
    service.problem = UnrecoverableError("the GPU fell off the bus", reason="GPU_LOST")
    with pytest.raises(UnrecoverableError, match="fell off the bus"):
        await asyncio.wait_for(serve_until_signalled([service], "127.0.0.1:0", settings), 60)
    assert service.events == ["start", "drain", "stop"]


async def test_unrecoverable_service_in_embedded_server_is_not_serving(
    service: ScriptedService, settings: Settings
) -> None:
    service.problem = UnrecoverableError("the GPU fell off the bus", reason="GPU_LOST")
    async with serving_channel(service, settings) as channel:
        assert await status_of_server(channel) == NOT_SERVING


async def status_of_server(channel: grpc.aio.Channel) -> Any:
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
    return answer.status


async def wait_for_status(watch: Any, wanted: int) -> None:
    async for answer in watch:
        if answer.status == wanted:
            return
    raise AssertionError("health ended")
