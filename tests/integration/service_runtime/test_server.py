"""Binding, health, reflection, drain, signals."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from dgx_music.channel import connect
from dgx_music.errors import FailedPrecondition, Unavailable
from dgx_music.generation.v1 import generation_pb2 as pb
from dgx_music.generation.v1 import generation_pb2_grpc as rpc
from service_runtime.observability.metrics import Gauge, metrics_endpoint
from service_runtime.rpc import health_monitor
from service_runtime.rpc.binding import is_local
from service_runtime.rpc.server import serve_services, serve_until_signalled
from service_runtime.rpc.stop_signal import stop_signal
from service_runtime.settings import Settings
from service_runtime.supervision import UnrecoverableError
from tests.support.processes import free_ports, process, until_serving

LOOPBACK = "127.0.0.1:0"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_taken_port_is_refused_and_not_shared(probe: Any, settings: Settings) -> None:
    async with serve_services([probe], [LOOPBACK], settings) as bound:
        with pytest.raises(FailedPrecondition, match="another server has it"):
            async with serve_services([probe], bound, settings):
                pass


async def test_a_port_beyond_the_last_is_not_taken_for_another(probe: Any, settings: Settings) -> None:
    (port,) = free_ports(1)
    with pytest.raises(FailedPrecondition, match=str(port + 65_536)):
        async with serve_services([probe], [f"127.0.0.1:{port + 65_536}"], settings):
            pass


async def test_a_taken_socket_is_refused_and_a_dead_one_is_taken_over(
    probe: Any, settings: Settings, tmp_path: Path
) -> None:
    address = f"unix:{tmp_path}/s"
    async with serve_services([probe], [address], settings):
        with pytest.raises(FailedPrecondition, match="another server has it"):
            async with serve_services([probe], [address], settings):
                pass
    with socket.socket(socket.AF_UNIX) as killed:  # Leaves its file behind, as a killed server does.
        killed.bind(f"{tmp_path}/s")
    async with serve_services([probe], [address], settings) as bound, connect(bound[0]) as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("unix:/tmp/s", True),
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("example.com:1", False),
    ],
)
def test_local_addresses(address: str, local: bool) -> None:
    assert is_local(address) is local


async def test_an_open_address_needs_a_word_for_it(probe: Any, settings: Settings) -> None:
    with pytest.raises(FailedPrecondition, match="ALLOW_INSECURE_LISTEN"):
        async with serve_services([probe], ["0.0.0.0:0"], settings):
            pass
    open_settings = settings.model_copy(update={"allow_insecure_listen": True})
    async with serve_services([probe], ["0.0.0.0:0"], open_settings) as bound:
        port = bound[0].rpartition(":")[2]
        async with connect(f"127.0.0.1:{port}") as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
            assert answer.status == SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:  # Reflection is off where a network can reach it.
                await _reflected(channel)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def _reflected(channel: grpc.aio.Channel) -> list[str]:
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(timeout=60)
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = await call.read()
    await call.done_writing()
    if answer == grpc.aio.EOF:
        code = await call.code()
        raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())
    names = [service.name for service in answer.list_services_response.service]
    call.cancel()
    return names


async def test_reflection_lists_the_services(probe: Any, settings: Settings) -> None:
    async with serve_services([probe], [LOOPBACK], settings) as bound, connect(bound[0]) as channel:
        names = await _reflected(channel)
    assert set(names) == {probe.full_name, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


async def test_health_says_when_a_need_fails_and_when_it_is_back(
    probe: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_monitor, "HEALTH_PERIOD_SECONDS", 0.05)
    async with serve_services([probe], [LOOPBACK], settings) as bound, connect(bound[0]) as channel:
        for name in (probe.full_name, ""):
            probe.problem = None
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=name), timeout=60)
            assert (await _next_status(watch, SERVING)) == SERVING
            probe.problem = Unavailable("the database is away", reason="AWAY")
            assert (await _next_status(watch, NOT_SERVING)) == NOT_SERVING
            probe.problem = None
            assert (await _next_status(watch, SERVING)) == SERVING
            watch.cancel()


async def _next_status(watch: Any, wanted: int) -> int:
    async for answer in watch:
        if answer.status == wanted:
            return wanted
    raise AssertionError("health ended")


async def test_a_check_that_hangs_is_not_serving(
    probe: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_monitor, "HEALTH_PERIOD_SECONDS", 0.05)

    async def hang() -> None:
        await asyncio.Event().wait()

    probe.check = hang
    async with serve_services([probe], [LOOPBACK], settings) as bound, connect(bound[0]) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
        assert answer.status == NOT_SERVING


async def test_drain_lets_a_running_call_end_and_takes_no_new_one(probe: Any, settings: Settings) -> None:
    release, entered = asyncio.Event(), asyncio.Event()

    async def slow(context: Any) -> None:
        entered.set()
        await release.wait()

    async def drain() -> None:
        probe.events.append("drain")
        release.set()

    probe.behaviour, probe.drain = slow, drain
    async with AsyncExitStack() as channels:
        async with serve_services([probe], [LOOPBACK], settings) as bound:
            stub = rpc.GenerationServiceStub(await channels.enter_async_context(connect(bound[0])))
            running_call = asyncio.create_task(_await(stub.ListModels(pb.ListModelsRequest(), timeout=60)))
            await entered.wait()
        await running_call
        assert probe.events == ["start", "drain", "stop"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetModel(pb.GetModelRequest(), timeout=60)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def _await(call: Any) -> Any:
    return await call


async def test_a_service_that_can_not_start_leaves_nothing_behind(probe: Any, settings: Settings) -> None:
    async def start() -> None:
        raise FailedPrecondition("schema too new", reason="SCHEMA")

    probe.start = start
    with pytest.raises(FailedPrecondition, match="schema too new"):
        async with serve_services([probe], [LOOPBACK], settings):
            pass
    assert probe.events == ["drain", "stop"]


async def test_more_calls_than_allowed_are_refused_at_once(probe: Any, settings: Settings) -> None:
    release, entered = asyncio.Event(), asyncio.Event()

    async def slow(context: Any) -> None:
        entered.set()
        await release.wait()

    probe.behaviour = slow
    few = settings.model_copy(update={"max_concurrent_rpcs": 1})
    async with serve_services([probe], [LOOPBACK], few) as bound, connect(bound[0]) as channel:
        stub = rpc.GenerationServiceStub(channel)
        first = asyncio.create_task(_await(stub.ListModels(pb.ListModelsRequest(), timeout=60)))
        await entered.wait()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetEngineStatus(pb.GetEngineStatusRequest(), timeout=60)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        release.set()
        await first


async def test_metrics_count_calls_by_method_and_code(probe: Any, settings: Settings, tmp_path: Path) -> None:
    with metrics_endpoint(None) as nobody:
        assert nobody is None
    (port,) = free_ports(1)
    measured = settings.model_copy(update={"metrics_port": port})
    async with serve_services([probe], [LOOPBACK], measured) as bound, connect(bound[0]) as channel:
        stub = rpc.GenerationServiceStub(channel)
        await stub.ListModels(pb.ListModelsRequest(), timeout=60)

        def fail(context: Any) -> None:
            raise Unavailable("away", reason="AWAY")

        probe.behaviour = fail
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in stub.Generate(pb.GenerateRequest(), timeout=60):
                pass
        page = await asyncio.to_thread(_read, f"http://127.0.0.1:{port}/metrics")
        with pytest.raises(FailedPrecondition, match="DGX_MUSIC_METRICS_PORT"):
            async with serve_services([probe], [LOOPBACK], measured):
                pass
    service = "/dgx_music.generation.v1.GenerationService"
    assert f'dgx_music_rpcs_total{{code="OK",method="{service}/ListModels"}} 1.0' in page
    assert f'dgx_music_rpcs_total{{code="UNAVAILABLE",method="{service}/Generate"}} 1.0' in page
    assert f'dgx_music_rpc_seconds_count{{method="{service}/ListModels"}} 1.0' in page


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return bytes(answer.read()).decode()


async def test_the_first_signal_asks_to_stop() -> None:
    async with stop_signal() as stop:
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(stop.wait(), 60)


SERVER_PROCESS = """
import asyncio, sys
from storage_service.config import StorageSettings
from storage_service.rpc.server import build
from service_runtime.rpc.server import serve_until_signalled
from service_runtime.observability.logging import configure_logging
settings = StorageSettings()
configure_logging("info", "json")
async def main():
    service = build(settings)
    async def hang():
        print("draining", flush=True)
        await asyncio.Event().wait()
    if "hang" in sys.argv:
        service.drain = hang
    await serve_until_signalled([service], "127.0.0.1:0", settings)
asyncio.run(main())
"""


@asynccontextmanager
async def _server_process(data_dir: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {**os.environ, "DGX_MUSIC_DATA_DIR": str(data_dir)}
    pipes = dict.fromkeys(("stdout", "stderr"), asyncio.subprocess.PIPE)
    async with process(sys.executable, "-c", SERVER_PROCESS, *arguments, env=environment, **pipes) as server:
        await until_serving(server)
        yield server


async def test_sigterm_drains_and_exits_0(tmp_path: Path) -> None:
    async with _server_process(tmp_path) as server:
        server.send_signal(signal.SIGTERM)
        _, logged = await asyncio.wait_for(server.communicate(), 60)
    assert server.returncode == 0
    assert b'"draining"' in logged
    assert b'"stopped"' in logged


async def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    async with _server_process(tmp_path, "hang") as server:
        assert server.stdout is not None
        server.send_signal(signal.SIGTERM)
        await asyncio.wait_for(server.stdout.readline(), 60)
        server.send_signal(signal.SIGTERM)
        await asyncio.wait_for(server.communicate(), 60)
    assert server.returncode == 128 + signal.SIGTERM


async def test_a_service_that_is_lost_ends_the_process_that_serves_with_its_reason(
    probe: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_monitor, "HEALTH_PERIOD_SECONDS", 0.05)
    probe.problem = UnrecoverableError("the GPU fell off the bus", reason="GPU_LOST")
    with pytest.raises(UnrecoverableError, match="fell off the bus"):
        await asyncio.wait_for(serve_until_signalled([probe], LOOPBACK, settings), 60)
    assert probe.events == ["start", "drain", "stop"]


async def test_a_service_that_is_lost_leaves_other_processes_alone(probe: Any, settings: Settings) -> None:
    probe.problem = UnrecoverableError("the GPU fell off the bus", reason="GPU_LOST")
    async with serve_services([probe], [LOOPBACK], settings) as bound, connect(bound[0]) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
        assert answer.status == NOT_SERVING


async def test_metrics_show_what_services_measure(probe: Any, settings: Settings) -> None:
    probe.gauges = lambda: [Gauge("probe_depth_meters", "How deep.", 1.5)]
    (port,) = free_ports(1)
    async with serve_services([probe], [LOOPBACK], settings.model_copy(update={"metrics_port": port})):
        page = await asyncio.to_thread(_read, f"http://127.0.0.1:{port}/metrics")
    assert "# HELP dgx_music_probe_depth_meters How deep." in page
    assert "dgx_music_probe_depth_meters 1.5" in page
