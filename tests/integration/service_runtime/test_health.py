"""The health service, and the probe that reads it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dgx_music.channel import connect
from dgx_music.errors import FailedPrecondition, Unavailable
from dgx_music.generation.v1 import generation_pb2, generation_pb2_grpc
from service_runtime.rpc.probe import probe
from service_runtime.rpc.server import serve_services, serve_until_signalled
from service_runtime.settings import Settings
from service_runtime.supervision import UnrecoverableError
from tests.support.processes import free_ports
from tests.support.scripted_service import ScriptedService, serving_channel
from tests.support.tls_files import make_tls_files

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


async def test_probe_without_tls_has_an_address_of_its_own(
    service: ScriptedService, settings: Settings, tmp_path: Path
) -> None:
    tls = make_tls_files(tmp_path / "tls")
    port, health_port = free_ports(2)
    update = {
        "health_listen": f"127.0.0.1:{health_port}",
        "tls_certificate": tls.folder / "server.pem",
        "tls_key": tls.folder / "server.key",
    }
    service.problem = Unavailable("the database is away", reason="AWAY")
    async with serve_services([service], [f"127.0.0.1:{port}"], settings.model_copy(update=update)):
        async with connect(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
                await status_of_server(channel)
        async with connect(f"127.0.0.1:{health_port}") as channel:
            assert await status_of_server(channel, service.full_name) == NOT_SERVING
            assert await status_of_server(channel, "liveness") == SERVING
            with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
                await status_of_server(channel, "no.such.Service")
            with pytest.raises(grpc.aio.AioRpcError, match="UNIMPLEMENTED"):  # Nothing else is served there.
                await generation_pb2_grpc.GenerationServiceStub(channel).ListModels(
                    generation_pb2.ListModelsRequest(), timeout=60
                )


async def test_liveness_lasts_from_before_the_start_until_after_the_drain(
    service: ScriptedService, settings: Settings
) -> None:
    (port,) = free_ports(1)
    seen: dict[str, tuple[Any, Any]] = {}

    async def states(when: str) -> None:
        async with connect(f"127.0.0.1:{port}") as channel:
            seen[when] = await status_of_server(channel), await status_of_server(channel, "liveness")

    service.start = lambda: states("start")  # type: ignore[method-assign]
    service.drain = lambda: states("drain")  # type: ignore[method-assign]
    service.stop = lambda: states("stop")  # type: ignore[method-assign]
    update = {"health_listen": f"127.0.0.1:{port}"}
    async with serve_services([service], ["127.0.0.1:0"], settings.model_copy(update=update)):
        await states("served")
    not_ready = NOT_SERVING, SERVING
    assert seen == {"start": not_ready, "served": (SERVING, SERVING), "drain": not_ready, "stop": not_ready}


async def test_taken_health_address_is_named(service: ScriptedService, settings: Settings) -> None:
    async with serve_services([service], ["127.0.0.1:0"], settings) as bound:
        for address, problem in (
            (bound[0], "set DGX_MUSIC_HEALTH_LISTEN to another"),
            ("ipv4:127.0.0.1:1", "HEALTH_LISTEN to HOST:PORT"),
        ):
            with pytest.raises(FailedPrecondition, match=problem):
                async with serve_services(
                    [service], ["127.0.0.1:0"], settings.model_copy(update={"health_listen": address})
                ):
                    pass


async def status_of_server(channel: grpc.aio.Channel, name: str = "") -> Any:
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name), timeout=60)
    return answer.status


async def wait_for_status(watch: Any, wanted: int) -> None:
    async for answer in watch:
        if answer.status == wanted:
            return
    raise AssertionError("health ended")
