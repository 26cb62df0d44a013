"""The Prometheus endpoint of a server."""

from __future__ import annotations

import asyncio
import urllib.request
from typing import Any

import grpc.aio
import pytest

from dgx_music.errors import FailedPrecondition, Unavailable
from dgx_music.generation.v1 import generation_pb2 as pb
from dgx_music.generation.v1 import generation_pb2_grpc as rpc
from service_runtime.observability.metrics import Gauge
from service_runtime.rpc.server import serve_services
from service_runtime.settings import Settings
from tests.support.processes import free_ports
from tests.support.scripted_service import ScriptedService, serving_channel

METHOD_PREFIX = "/dgx_music.generation.v1.GenerationService"


async def test_metrics_count_calls_and_show_gauges(service: ScriptedService, settings: Settings) -> None:
    service.gauges = lambda: [Gauge("test_depth_meters", "How deep.", 1.5)]  # type: ignore[attr-defined]
    (port,) = free_ports(1)
    settings = settings.model_copy(update={"metrics_port": port})
    async with serving_channel(service, settings) as channel:
        stub = rpc.GenerationServiceStub(channel)
        await stub.ListModels(pb.ListModelsRequest(), timeout=60)

        def fail(context: Any) -> None:
            raise Unavailable("away", reason="AWAY")

        service.behaviour = fail
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in stub.Generate(pb.GenerateRequest(), timeout=60):
                pass
        page = await asyncio.to_thread(read_page, f"http://127.0.0.1:{port}/metrics")
        with pytest.raises(FailedPrecondition, match="DGX_MUSIC_METRICS_PORT"):
            async with serve_services([service], ["127.0.0.1:0"], settings):
                pass
    assert f'dgx_music_rpcs_total{{code="OK",method="{METHOD_PREFIX}/ListModels"}} 1.0' in page
    assert f'dgx_music_rpcs_total{{code="UNAVAILABLE",method="{METHOD_PREFIX}/Generate"}} 1.0' in page
    assert f'dgx_music_rpc_seconds_count{{method="{METHOD_PREFIX}/ListModels"}} 1.0' in page
    assert "# HELP dgx_music_test_depth_meters How deep." in page
    assert "dgx_music_test_depth_meters 1.5" in page


def read_page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return bytes(answer.read()).decode()
