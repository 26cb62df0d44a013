"""How a server starts, drains and stops, and what signals do to it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from dgx_music.channel import connect
from dgx_music.errors import FailedPrecondition
from dgx_music.generation.v1 import generation_pb2 as pb
from dgx_music.generation.v1 import generation_pb2_grpc as rpc
from service_runtime.rpc.server import serve_services
from service_runtime.settings import Settings
from tests.support.processes import process, wait_until_serving
from tests.support.scripted_service import ScriptedService


class Gate:
    """A behaviour that blocks each call until it is released."""

    def __init__(self) -> None:
        self.entered, self.released = asyncio.Event(), asyncio.Event()

    async def __call__(self, context: Any) -> None:
        self.entered.set()
        await self.released.wait()


async def test_drain_finishes_running_call_and_rejects_new_one(service: ScriptedService, settings: Settings) -> None:
    gate = Gate()

    async def drain() -> None:
        service.events.append("drain")
        gate.released.set()

    service.behaviour, service.drain = gate, drain  # type: ignore[method-assign]
    async with AsyncExitStack() as channels:
        async with serve_services([service], ["127.0.0.1:0"], settings) as bound:
            stub = rpc.GenerationServiceStub(await channels.enter_async_context(connect(bound[0])))
            running_call = start(stub.ListModels(pb.ListModelsRequest(), timeout=60))
            await gate.entered.wait()
        await running_call
        assert service.events == ["start", "drain", "stop"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetModel(pb.GetModelRequest(), timeout=60)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_service_that_fails_to_start_is_drained_and_stopped(service: ScriptedService, settings: Settings) -> None:
    async def start() -> None:
        raise FailedPrecondition("schema too new", reason="SCHEMA")

    service.start = start  # type: ignore[method-assign]
    with pytest.raises(FailedPrecondition, match="schema too new"):
        async with serve_services([service], ["127.0.0.1:0"], settings):
            pass
    assert service.events == ["drain", "stop"]


def start(call: Any) -> asyncio.Task[Any]:
    """Starts the call; the task ends with its response."""

    async def response() -> Any:
        return await call

    return asyncio.create_task(response())


SERVER_PROGRAM = """
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
async def server_process(data_dir: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {**os.environ, "DGX_MUSIC_DATA_DIR": str(data_dir)}
    pipes = dict.fromkeys(("stdout", "stderr"), asyncio.subprocess.PIPE)
    async with process(sys.executable, "-c", SERVER_PROGRAM, *arguments, env=environment, **pipes) as server:
        await wait_until_serving(server)
        yield server


async def test_sigterm_drains_and_exits_with_0(tmp_path: Path) -> None:
    async with server_process(tmp_path) as server:
        server.send_signal(signal.SIGTERM)
        _, log = await asyncio.wait_for(server.communicate(), 60)
    assert server.returncode == 0
    assert b'"draining"' in log
    assert b'"stopped"' in log


async def test_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    async with server_process(tmp_path, "hang") as server:
        assert server.stdout is not None
        server.send_signal(signal.SIGTERM)
        await asyncio.wait_for(server.stdout.readline(), 60)
        server.send_signal(signal.SIGTERM)
        await asyncio.wait_for(server.communicate(), 60)
    assert server.returncode == 128 + signal.SIGTERM
