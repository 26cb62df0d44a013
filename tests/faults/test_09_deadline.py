"""Fault 9: the deadline of a call passes while its request waits for a place in the batch, and while it runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import pytest

from dgx_music.error_status import read_error_details
from dgx_music.generation.v1 import generation_pb2
from tests.support.tone_engine_process import Fifo
from tests.support.tone_processes import tone_processes

pytestmark = pytest.mark.slow
HOUR = 3600.0


def request(prompt: str, seconds: float = 0.5) -> generation_pb2.GenerateRequest:
    return generation_pb2.GenerateRequest(prompt=prompt, duration_seconds=seconds, model_name="tone")


async def test_deadline_ends_a_request_that_waits_and_one_that_runs(tmp_path: Path) -> None:
    fifo = Fifo(tmp_path / "fifo")
    async with tone_processes(tmp_path / "data", "storage", "export") as services:
        await services.start_worker(DGX_MUSIC_MAX_BATCH_SIZE="1")
        stub = services.generation

        async def end_of(call: grpc.aio.UnaryStreamCall) -> grpc.StatusCode:
            try:
                async for _ in call:
                    pass
            except grpc.aio.AioRpcError as error:
                return read_error_details(error).code
            return grpc.StatusCode.OK

        runs = asyncio.create_task(end_of(stub.Generate(request(fifo.prompt, HOUR), timeout=8)))
        await fifo.reached()
        waits = end_of(stub.Generate(request("b"), timeout=0.5))
        assert await waits is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await runs is grpc.StatusCode.DEADLINE_EXCEEDED
        await fifo.release()
        assert await end_of(stub.Generate(request("next"), timeout=60)) is grpc.StatusCode.OK
        status = await stub.GetEngineStatus(generation_pb2.GetEngineStatusRequest(), timeout=60)
        assert (status.running, status.waiting) == (0, 0)
