"""Fault 31: storage or export is killed and restarted at each step of a job. The worker completes it, or deletes the
file that nobody needs any more."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from dgx_music.storage.v1 import storage_pb2 as pb
from tests.support.tone_model import RATE_HZ
from tests.support.tone_processes import ToneProcesses, tone_processes

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]
STEPS = ("after_claim", "before_chunk", "before_end", "before_complete")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ToneProcesses]:
    async with tone_processes(tmp_path_factory.mktemp("services") / "data", "storage", "export") as services:
        yield services


async def stop_at(services: ToneProcesses, step: str) -> str:
    """Has a worker stop at a step of a job. Returns the generation."""
    await services.start_worker(failpoint=f"generation.{step}:stop", DGX_MUSIC_LEASE_SECONDS="120")
    generation_id = await services.create()
    await services.running["generation"].wait_until_stopped()
    return generation_id


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", ["storage", "export"])
async def test_job_is_completed_though_a_service_was_away(services: ToneProcesses, name: str, step: str) -> None:
    generation_id = await stop_at(services, step)
    await services.kill(name)
    if name == "storage":  # The worker repeats its calls until storage is back.
        services.resume("generation")
    await services.start(name)
    services.resume("generation")
    done = await services.wait_until_completed(generation_id)
    assert len(services.samples_of(done)) == RATE_HZ
    assert done.attempt == (2 if (name, step) in {("export", "before_chunk"), ("export", "before_end")} else 1)
    await services.kill("generation")
    assert services.problems() == []
    assert services.spools_of(generation_id) == [f"{generation_id}.{done.attempt}.pcm"]


async def test_file_of_a_cancelled_generation_is_deleted_once_export_is_back(services: ToneProcesses) -> None:
    generation_id = await stop_at(services, "before_complete")
    await services.storage.CancelGeneration(pb.CancelGenerationRequest(id=generation_id), timeout=60)
    await services.kill("export")
    worker = services.running["generation"]
    worker.resume()
    await worker.wait_for_event("deletion_delayed")
    assert services.files_of(generation_id) != []
    await services.start("export")
    await worker.wait_for_event("job_ended")
    assert services.files_of(generation_id) == []
    assert services.spools_of(generation_id) == []
    await services.kill("generation")
