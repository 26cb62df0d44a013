"""Fault 4: a worker is stopped by SIGSTOP past its lease, at each step of a job, and continued when another worker has
the job. Its token is stale: it writes nothing, and deletes nothing that the other one needs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from dgx_music.export.v1 import export_pb2
from dgx_music.storage.v1 import storage_pb2 as pb
from tests.support.tone_engine_process import Fifo
from tests.support.tone_processes import ToneProcesses, tone_processes

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]
STOPPED, OTHER, NEXT = "generation", "generation-2", "generation-3"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ToneProcesses]:
    """Storage, export and a worker that does one job at a time. Each test starts its own worker besides."""
    async with tone_processes(tmp_path_factory.mktemp("services") / "data", "storage", "export") as services:
        await services.start_worker(OTHER, DGX_MUSIC_WORKER_SLOTS="1", DGX_MUSIC_LEASE_SECONDS="60")
        yield services


async def stop_at(services: ToneProcesses, tmp_path: Path, failpoint: str, prompt: str = "a") -> tuple[str, Fifo]:
    """Has a worker stop at a failpoint until its lease has expired, while the other one is busy. Returns the generation
    that it had claimed, and what makes the other one free."""
    busy = Fifo(tmp_path / "busy")
    await services.wait_until(await services.create(busy.prompt), is_in_attempt(1))
    await services.start_worker(STOPPED, failpoint=failpoint, DGX_MUSIC_WORKER_SLOTS="1")
    generation_id = await services.create(prompt)
    await services.wait_until(generation_id, is_in_attempt(1))
    await services.wait_until(generation_id, lambda one: one.state == pb.GENERATION_STATE_PENDING)
    return generation_id, busy


def is_in_attempt(attempt: int) -> Callable[[pb.Generation], bool]:
    return lambda one: (one.state, one.attempt) == (pb.GENERATION_STATE_PROCESSING, attempt)


async def go_on(services: ToneProcesses) -> str:
    """Continues the stopped worker; returns its log up to the end of its job."""
    worker = services.running[STOPPED]
    worker.resume()
    await worker.wait_for_event("job_ended")
    log = worker.log()
    await services.kill(STOPPED)
    return log


@pytest.mark.parametrize("step", ["after_claim", "before_chunk", "before_end", "before_complete"])
async def test_stopped_worker_changes_nothing_once_another_has_completed_its_job(
    services: ToneProcesses, tmp_path: Path, step: str
) -> None:
    generation_id, busy = await stop_at(services, tmp_path, f"generation.{step}:stop")
    await busy.release()
    done = await services.wait_until_completed(generation_id)
    assert done.attempt > 1
    log = await go_on(services)
    assert '"outcome": "lease' in log
    assert await services.wait_until_completed(generation_id) == done
    assert services.problems() == []


async def test_stopped_worker_does_not_disturb_the_one_that_has_its_job(
    services: ToneProcesses, tmp_path: Path
) -> None:
    held = Fifo(tmp_path / "held")
    generation_id, busy = await stop_at(services, tmp_path, "generation.before_chunk:stop", held.prompt)
    await busy.release()
    await services.wait_until(generation_id, is_in_attempt(2))
    log = await go_on(services)
    assert '"outcome": "lease' in log
    await held.release()
    assert (await services.wait_until_completed(generation_id)).attempt == 2
    assert services.problems() == []


async def test_stale_token_completes_nothing(services: ToneProcesses, tmp_path: Path) -> None:
    failpoint = "generation.before_complete:stop"
    generation_id, busy = await stop_at(services, tmp_path, failpoint)
    await services.start_worker(NEXT, failpoint=failpoint, DGX_MUSIC_LEASE_SECONDS="60")
    await services.running[NEXT].wait_until_stopped()
    assert is_in_attempt(2)(await services.get(generation_id))
    log = await go_on(services)
    assert '"outcome": "lease lost"' in log
    assert is_in_attempt(2)(await services.get(generation_id))
    services.resume(NEXT)
    assert (await services.wait_until_completed(generation_id)).attempt == 2
    await services.kill(NEXT)
    await busy.release()
    assert services.problems() == []


async def test_failure_of_a_stopped_worker_is_not_recorded(services: ToneProcesses, tmp_path: Path) -> None:
    generation_id, busy = await stop_at(services, tmp_path, "generation.before_fail:stop", "raise")
    await services.storage.CancelGeneration(pb.CancelGenerationRequest(id=generation_id), timeout=60)
    await go_on(services)
    ended = await services.get(generation_id)
    assert ended.state == pb.GENERATION_STATE_CANCELLED
    assert ended.error_message == "the worker stopped responding and its lease expired"
    await busy.release()


@pytest.mark.parametrize("is_deleted", [False, True], ids=["cancelled", "deleted"])
async def test_stopped_worker_deletes_the_file_of_a_generation_that_was_cancelled_meanwhile(
    services: ToneProcesses, tmp_path: Path, is_deleted: bool
) -> None:
    generation_id, busy = await stop_at(services, tmp_path, "generation.before_complete:stop")
    await services.storage.CancelGeneration(pb.CancelGenerationRequest(id=generation_id), timeout=60)
    if is_deleted:
        await services.storage.DeleteGeneration(pb.DeleteGenerationRequest(id=generation_id), timeout=60)
    assert services.files_of(generation_id) != []
    log = await go_on(services)
    assert '"outcome": "cancelled"' in log
    assert services.files_of(generation_id) == []
    assert services.spools_of(generation_id) == []
    await busy.release()
    verified = services.export.ListFiles(export_pb2.ListFilesRequest(), timeout=60)
    assert generation_id not in str(await verified)
