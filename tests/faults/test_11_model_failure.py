"""Fault 11: the model raises, runs out of memory or loses the device in the middle of a batch. Its request fails with
the reason and the others of the batch go on; a process without a device ends, and its jobs go to the next one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dgx_music.generation.v1 import generation_pb2
from dgx_music.storage.v1 import storage_pb2 as pb
from tests.support.tone_engine_process import Fifo
from tests.support.tone_model import RATE_HZ
from tests.support.tone_processes import ToneProcesses, tone_processes

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]
SERVICE = "dgx_music.generation.v1.GenerationService"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ToneProcesses]:
    async with tone_processes(tmp_path_factory.mktemp("services") / "data", "storage", "export") as services:
        yield services


async def create_batch(services: ToneProcesses, fifo: Fifo, prompt: str) -> tuple[list[str], str]:
    """Creates two generations that take long, and one that fails in its third step, in one batch that waits for the
    FIFO. Returns them."""
    mates = [await services.create(fifo.prompt, seconds=6.0)]
    await fifo.reached()
    mates.append(await services.create("mate", seconds=6.0))
    failing = await services.create(prompt, seconds=6.0, max_attempts=1)
    in_engine = 0
    while in_engine < 3:
        status = await services.generation.GetEngineStatus(generation_pb2.GetEngineStatusRequest(), timeout=60)
        in_engine = status.running + status.waiting
    return mates, failing


@pytest.mark.parametrize(
    ("prompt", "devices", "reason"),
    [
        ("raise", "cpu", "model 'tone' failed at step 3: ValueError: a string broke"),
        ("memory", "cpu", "model 'tone' ran out of memory at step 3, where it needed 20.00 MiB more"),
    ],
)
async def test_failing_request_fails_alone(
    services: ToneProcesses, tmp_path: Path, prompt: str, devices: str, reason: str
) -> None:
    await services.start_worker(DGX_MUSIC_DEVICES=devices)
    undisturbed = services.samples_of(await services.wait_until_completed(await services.create("a", seconds=6.0)))
    fifo = Fifo(tmp_path / "fifo")
    mates, failing = await create_batch(services, fifo, prompt)
    await fifo.release()
    failed = await services.wait_until_ended(failing)
    assert failed.state == pb.GENERATION_STATE_FAILED
    assert failed.error_message.startswith(reason)
    for mate in mates:
        samples = services.samples_of(await services.wait_until_completed(mate))
        assert np.abs(samples - undisturbed).max() <= 1 << 8, "the dither of each file is its own"
    assert '"batch_failed"' in services.running["generation"].log()
    assert services.files_of(failing) == []
    await services.kill("generation")
    assert services.problems() == []


async def test_process_that_loses_its_device_exits_and_its_jobs_go_to_the_next(
    services: ToneProcesses, tmp_path: Path
) -> None:
    await services.start_worker()
    fifo = Fifo(tmp_path / "fifo")
    mates, failing = await create_batch(services, fifo, "lose")
    health = health_pb2_grpc.HealthStub(services.channel("generation"))
    watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=120)
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    await fifo.release()
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert await services.running.pop("generation").wait() == 1
    failed = await services.wait_until_ended(failing)
    assert failed.state == pb.GENERATION_STATE_FAILED
    assert "an illegal memory access" in failed.error_message
    await services.start_worker()
    await fifo.release()
    for mate in mates:
        done = await services.wait_until_completed(mate)
        assert len(services.samples_of(done)) == 6 * RATE_HZ
    await services.kill("generation")
    assert services.problems() == []
