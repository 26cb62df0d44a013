"""Fault 8: the caller cancels, or is killed. A direct Generate frees its place in the batch, a stored generation goes
on without its client, and CancelGeneration stops the model."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from dgx_music.generation.v1 import generation_pb2
from dgx_music.storage.v1 import storage_pb2 as pb
from tests.support.command_line import DGX_MUSIC, environment
from tests.support.processes import process
from tests.support.tone_engine_process import Fifo
from tests.support.tone_processes import ToneProcesses, tone_processes

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]
HOUR = 3600.0

DIRECT_CALLER = """
import sys, grpc
from dgx_music.generation.v1 import generation_pb2, generation_pb2_grpc
stub = generation_pb2_grpc.GenerationServiceStub(grpc.insecure_channel(sys.argv[1]))
for part in stub.Generate(generation_pb2.GenerateRequest(prompt="long", duration_seconds=3600, model_name="tone")):
    if part.WhichOneof("part") == "chunk":
        print("receiving", flush=True)
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ToneProcesses]:
    """All services. The engine has one place."""
    async with tone_processes(tmp_path_factory.mktemp("services") / "data", "storage", "export") as services:
        await services.start_worker(DGX_MUSIC_MAX_BATCH_SIZE="1")
        await services.start("gateway")
        yield services


async def generate_directly(services: ToneProcesses) -> list[str | None]:
    """Returns the kinds of the messages of a whole direct call."""
    request = generation_pb2.GenerateRequest(prompt="short", duration_seconds=0.5, model_name="tone")
    return [part.WhichOneof("part") async for part in services.generation.Generate(request, timeout=60)]


async def test_direct_call_of_a_killed_caller_frees_its_place(services: ToneProcesses) -> None:
    command = (sys.executable, "-c", DIRECT_CALLER, services.address("generation"))
    async with process(*command, env=environment(), stdout=asyncio.subprocess.PIPE) as caller:
        assert caller.stdout is not None
        assert await asyncio.wait_for(caller.stdout.readline(), 60) == b"receiving\n"
    assert (await generate_directly(services))[-1] == "end"


async def test_cancelled_direct_call_frees_its_place(services: ToneProcesses) -> None:
    request = generation_pb2.GenerateRequest(prompt="long", duration_seconds=HOUR, model_name="tone")
    call = services.generation.Generate(request, timeout=60)
    while (await call.read()).WhichOneof("part") != "chunk":
        pass
    call.cancel()
    assert (await generate_directly(services))[-1] == "end"


async def test_generation_goes_on_without_the_client_that_created_it(services: ToneProcesses, tmp_path: Path) -> None:
    fifo = Fifo(tmp_path / "fifo")
    command = (DGX_MUSIC, "generate", fifo.prompt, "--model", "tone", "-d", "1", "--json")
    env = environment(
        DGX_MUSIC_GATEWAY_ADDRESS=services.address("gateway"), DGX_MUSIC_DATA_DIR=str(tmp_path / "client")
    )
    pipes = {"stdout": asyncio.subprocess.DEVNULL, "stderr": asyncio.subprocess.DEVNULL}
    async with process(*command, env=env, **pipes):
        held = asyncio.create_task(fifo.reached())
        await asyncio.wait_for(held, 60)
    listed = await services.storage.ListGenerations(pb.ListGenerationsRequest(), timeout=60)
    [generation] = [one for one in listed.generations if one.prompt == fifo.prompt]
    assert generation.state == pb.GENERATION_STATE_PROCESSING
    await fifo.release()
    await services.wait_until_completed(generation.id)


async def test_cancelled_generation_frees_its_place_and_leaves_nothing(services: ToneProcesses) -> None:
    generation_id = await services.create("long", HOUR)
    await services.wait_until(generation_id, lambda one: one.progress > 0)
    await services.storage.CancelGeneration(pb.CancelGenerationRequest(id=generation_id), timeout=60)
    assert (await generate_directly(services))[-1] == "end"
    worker = services.running["generation"]
    await worker.wait_for_event("job_ended", 2)
    ended = [json.loads(line) for line in worker.log().splitlines() if '"job_ended"' in line]
    assert [(one["generation_id"], one["outcome"]) for one in ended][-1] == (generation_id, "cancelled")
    assert await services.kill("export", signal.SIGTERM) == 0  # It has noticed the end of the call by then.
    assert services.files_of(generation_id) == []
    assert services.spools_of(generation_id) == []
    assert services.problems() == []
