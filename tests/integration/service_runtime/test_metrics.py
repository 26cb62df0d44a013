"""The Prometheus endpoint of a server."""

from __future__ import annotations

import asyncio
import urllib.request
from typing import Any

import grpc.aio
import pytest

from dgx_music.errors import FailedPrecondition, NotFound, Unavailable
from dgx_music.generation.v1 import generation_pb2 as pb
from dgx_music.generation.v1 import generation_pb2_grpc as rpc
from service_runtime.observability.metrics import Distribution, Reading
from service_runtime.rpc.server import serve_services
from service_runtime.settings import Settings
from tests.support.log_capture import captured_logs
from tests.support.processes import free_ports
from tests.support.scripted_service import ScriptedService, serving_channel

REQUEST = pb.GenerateRequest(model_name="far")
LIST_MODELS = '{grpc_method="ListModels",grpc_service="dgx_music.generation.v1.GenerationService",grpc_type="unary"}'


def read_metrics() -> list[Reading]:
    seconds = Distribution((0.5, 1.0))
    seconds.observe(0.75)
    return [
        Reading("test_depth_meters", "How deep.", 1.5, {"sea": "north"}),
        Reading("test_depth_meters", "How deep.", 2.5, {"sea": "south"}),
        Reading("test_dives_total", "Dives.", 3.0),
        Reading("test_dive_seconds", "How long.", seconds),
    ]


async def test_metrics_count_calls_and_show_readings(service: ScriptedService, settings: Settings) -> None:
    service.read_metrics = read_metrics  # type: ignore[attr-defined]
    (port,) = free_ports(1)
    settings = settings.model_copy(update={"metrics_port": port})
    url = f"http://127.0.0.1:{port}/metrics"
    async with serving_channel(service, settings) as channel:
        stub = rpc.GenerationServiceStub(channel)
        await stub.ListModels(pb.ListModelsRequest(), timeout=60)

        def fail(context: Any) -> None:
            raise NotFound("model", "away")

        service.behaviour = fail
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in stub.Generate(REQUEST, timeout=60):
                pass
        page = await asyncio.to_thread(read_page, url)
        with pytest.raises(FailedPrecondition, match="DGX_MUSIC_METRICS_PORT"):
            async with serve_services([service], ["127.0.0.1:0"], settings):
                pass
    generate = LIST_MODELS.replace("ListModels", "Generate").replace("unary", "server_stream")
    for line in (
        f"grpc_server_started_total{LIST_MODELS} 1.0",
        f"grpc_server_handling_seconds_count{LIST_MODELS} 1.0",
        f"grpc_server_msg_received_total{LIST_MODELS} 1.0",
        f"grpc_server_msg_sent_total{LIST_MODELS} 1.0",
        f"dgx_music_rpc_received_bytes_total{generate} {REQUEST.ByteSize()}.0",
        f"dgx_music_rpcs_in_progress{generate} 0.0",
        f"grpc_server_handled_total{LIST_MODELS}".replace("{", '{grpc_code="OK",') + " 1.0",
        f"grpc_server_handled_total{generate}".replace("{", '{grpc_code="NotFound",') + " 1.0",
        "# HELP test_depth_meters How deep.",
        "# TYPE test_depth_meters gauge",
        'test_depth_meters{sea="south"} 2.5',
        "# TYPE test_dives_total counter",
        "test_dives_total 3.0",
        "# TYPE test_dive_seconds histogram",
        'test_dive_seconds_bucket{le="0.5"} 0.0',
        'test_dive_seconds_bucket{le="+Inf"} 1.0',
        "test_dive_seconds_sum 0.75",
    ):
        assert line in page.splitlines()
    assert "process_cpu_seconds_total" in page


async def test_metrics_beyond_loopback_need_permission(service: ScriptedService, settings: Settings) -> None:
    (port,) = free_ports(1)
    settings = settings.model_copy(update={"metrics_port": port, "metrics_host": "0.0.0.0"})
    with pytest.raises(FailedPrecondition, match="set DGX_MUSIC_METRICS_HOST"):
        async with serving_channel(service, settings):
            pass
    async with serving_channel(service, settings.model_copy(update={"allow_insecure_listen": True})):
        assert "process_cpu_seconds_total" in await asyncio.to_thread(read_page, f"http://127.0.0.1:{port}/metrics")


async def test_open_stream_is_in_progress(service: ScriptedService, settings: Settings) -> None:
    (port,) = free_ports(1)
    async with serving_channel(service, settings.model_copy(update={"metrics_port": port})) as channel:
        service.behaviour = lambda context: asyncio.Event().wait()
        call = rpc.GenerationServiceStub(channel).Generate(pb.GenerateRequest(), timeout=60)
        await call.read()
        page = await asyncio.to_thread(read_page, f"http://127.0.0.1:{port}/metrics")
        call.cancel()
        await service.closed.wait()
    generate = LIST_MODELS.replace("ListModels", "Generate").replace("unary", "server_stream")
    assert f"dgx_music_rpcs_in_progress{generate} 1.0" in page.splitlines()


async def test_readings_that_fail_leave_the_other_metrics(service: ScriptedService, settings: Settings) -> None:
    def fail() -> list[Reading]:
        raise Unavailable("the database is away", reason="AWAY")

    service.read_metrics = fail  # type: ignore[attr-defined]
    (port,) = free_ports(1)
    with captured_logs("json") as log:
        async with serving_channel(service, settings.model_copy(update={"metrics_port": port})):
            page = await asyncio.to_thread(read_page, f"http://127.0.0.1:{port}/metrics")
    assert "process_cpu_seconds_total" in page
    assert "the database is away" in log.getvalue()


def read_page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return bytes(answer.read()).decode()
