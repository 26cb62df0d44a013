"""Failure 24: a generation is cancelled while its worker, export or storage is away. No file of it is left."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dgx_music.export.v1 import export_pb2
from dgx_music.storage.v1 import storage_pb2 as pb
from gateway.cli.commands.database.db_check import find_problems
from storage_service.db.database import Database
from tests.support.cut_connection import forwarding_to
from tests.support.service_processes import ServiceProcesses, service_processes

pytestmark = pytest.mark.slow  # They wait for the ends of leases.

MODULE = "tests.soak.paced_generation"
TIMEOUT_SECONDS = 60
SETTINGS = {
    "DGX_MUSIC_LEASE_SWEEP_SECONDS": "0.2",
    "DGX_MUSIC_MAX_ATTEMPTS": "20",
    "DGX_MUSIC_SPOOL_KEEP_SECONDS": "0.1",  # So that another attempt has to generate.
}
DYING = {"DGX_MUSIC_LEASE_SECONDS": "4", "DGX_MUSIC_FAILPOINT": "generation.before_complete:kill"}
"""Of a worker that dies when the file is there, but not reported."""


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[ServiceProcesses]:
    async with service_processes(tmp_path / "data", "storage", "export", "gateway", **SETTINGS) as services:
        yield services


async def create(services: ServiceProcesses, seconds: float) -> str:
    """Creates a generation without the gateway's look at the model, which need not run yet."""
    request = pb.CreateGenerationRequest(
        prompt="house", model_name="sketch", duration_seconds=seconds, sample_rate_hz=32_000, channels=2
    )
    return (await services.storage.CreateGeneration(request, timeout=TIMEOUT_SECONDS)).generation.id


async def cancel(services: ServiceProcesses, generation_id: str) -> None:
    await services.music.CancelGeneration(pb.CancelGenerationRequest(id=generation_id), timeout=TIMEOUT_SECONDS)


async def wait_until_generating(services: ServiceProcesses, generation_id: str, attempt: int = 1) -> None:
    watch = services.storage.WatchGeneration(pb.WatchGenerationRequest(id=generation_id), timeout=TIMEOUT_SECONDS)
    async for response in watch:
        generation = response.generation
        if generation.attempt >= attempt and generation.stage == pb.GENERATION_STAGE_GENERATING:
            return
    raise AssertionError(generation)


async def wait_until_empty(services: ServiceProcesses) -> None:
    """Waits until no file and no samples are left."""

    async def wait() -> None:
        while any(any(services.data_dir.glob(files)) for files in ("outputs/*/*/*/*", "spool/*")):  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    await asyncio.wait_for(wait(), TIMEOUT_SECONDS)


async def test_the_file_of_an_earlier_attempt(services: ServiceProcesses) -> None:
    await services.start("generation", module=MODULE, **DYING)
    generation_id = await create(services, 12)
    assert await services.running["generation"].wait() == -signal.SIGKILL
    assert list((services.data_dir / "outputs").glob(f"*/*/*/{generation_id}.wav"))
    await services.start("generation", module=MODULE)
    await wait_until_generating(services, generation_id, 2)
    await cancel(services, generation_id)
    await services.running["generation"].wait_for_event("job_ended")
    await wait_until_empty(services)


async def test_a_worker_that_learns_of_it_late(services: ServiceProcesses) -> None:
    async with forwarding_to(services.address("storage")) as storage:
        settings = {"DGX_MUSIC_STORAGE_ADDRESS": storage.address, "DGX_MUSIC_LEASE_SECONDS": "10"}
        await services.start("generation", module=MODULE, **settings)
        generation_id = await create(services, 8)
        await wait_until_generating(services, generation_id)
        storage.hold()
        await cancel(services, generation_id)
        await services.running["export"].wait_for_event("exported")
        await services.running["generation"].wait_for_event("deletion_delayed")
        storage.restore()
        await services.running["generation"].wait_for_event("job_ended")
        await wait_until_empty(services)


async def test_export_is_away(services: ServiceProcesses) -> None:
    await services.start("generation", module=MODULE, **DYING)
    generation_id = await create(services, 1)
    assert await services.running["generation"].wait() == -signal.SIGKILL
    await services.kill("export")
    await cancel(services, generation_id)
    await services.start("export")
    await wait_until_empty(services)


async def test_the_gateway_ends_before_export_is_back(services: ServiceProcesses) -> None:
    await services.start("generation", module=MODULE, **DYING)
    generation_id = await create(services, 1)
    assert await services.running["generation"].wait() == -signal.SIGKILL
    await services.kill("export")
    await cancel(services, generation_id)
    assert await services.kill("gateway", signal.SIGTERM) == 0
    await services.start("export", "gateway")
    [left] = (services.data_dir / "outputs").glob(f"*/*/*/{generation_id}.wav")
    with Database(f"sqlite:///{services.data_dir}/dgx_music.db") as database:
        [problem] = find_problems(database, services.data_dir, read_files=True)
    assert "files cleanup --orphans" in problem.remedy
    two_hours_ago = time.time() - 7200
    os.utime(left, (two_hours_ago, two_hours_ago))
    request = export_pb2.CleanupRequest(orphans=True)
    assert [one.file.generation_id async for one in services.music.Cleanup(request, timeout=60)] == [generation_id]
    await wait_until_empty(services)
