"""Gives `ScriptedService`, a minimal gRPC service whose behaviour a test decides, and a server that runs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio

from dgx_music.channel import connect
from dgx_music.generation.v1 import generation_pb2 as pb
from dgx_music.generation.v1 import generation_pb2_grpc as rpc
from service_runtime.rpc.server import serve_services
from service_runtime.settings import Settings


class ScriptedService(rpc.GenerationServiceServicer):
    """Runs `behaviour` inside each call, and raises `problem`, if any, in each health check."""

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
        await self._run_behaviour(context)
        return pb.ListModelsResponse()

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> AsyncIterator[pb.GenerateResponse]:
        try:
            while True:
                yield pb.GenerateResponse()
                await self._run_behaviour(context)
        finally:
            self.closed.set()

    async def _run_behaviour(self, context: Any) -> None:
        result = self.behaviour(context)
        if asyncio.iscoroutine(result):
            await result


@asynccontextmanager
async def serving_channel(service: ScriptedService, settings: Settings) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the service, which runs while the block runs."""
    async with serve_services([service], ["127.0.0.1:0"], settings) as bound, connect(bound[0]) as channel:
        yield channel
