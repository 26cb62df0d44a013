"""A real server with the smallest real servicer, so that the runtime is tested over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from dgx_music.channel import connect
from dgx_music.generation.v1 import generation_pb2 as pb
from dgx_music.generation.v1 import generation_pb2_grpc as rpc
from service_runtime.rpc.server import serve_services
from service_runtime.settings import Settings


class Probe(rpc.GenerationServiceServicer):
    """A service whose answers the test decides: `behaviour` is run inside each call."""

    full_name = "dgx_music.generation.v1.GenerationService"

    def __init__(self) -> None:
        self.behaviour: Callable[[Any], Any] = lambda context: None
        self.problem: Exception | None = None
        self.events: list[str] = []
        self.closed = asyncio.Event()

    def add_to(self, server: grpc.aio.Server) -> None:
        rpc.add_GenerationServiceServicer_to_server(self, server)

    async def start(self) -> None:
        self.events.append("start")

    async def check(self) -> None:
        if self.problem is not None:
            raise self.problem

    async def drain(self) -> None:
        self.events.append("drain")

    async def stop(self) -> None:
        self.events.append("stop")

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        result = self.behaviour(context)
        if asyncio.iscoroutine(result):
            await result
        return pb.ListModelsResponse()

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> AsyncIterator[pb.GenerateResponse]:
        try:
            while True:
                yield pb.GenerateResponse()
                result = self.behaviour(context)
                if asyncio.iscoroutine(result):
                    await result
        finally:
            self.closed.set()


@pytest.fixture
async def probe() -> Probe:
    return Probe()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, grace_seconds=5)


@pytest.fixture
async def stub(probe: Probe, settings: Settings, tmp_path: Path) -> AsyncIterator[rpc.GenerationServiceAsyncStub]:
    async with served(probe, settings, f"unix:{tmp_path}/s") as client:
        yield client


@asynccontextmanager
async def served(probe: Probe, settings: Settings, address: str) -> AsyncIterator[rpc.GenerationServiceAsyncStub]:
    async with serve_services([probe], [address], settings) as bound, connect(bound[0]) as channel:
        yield rpc.GenerationServiceStub(channel)
