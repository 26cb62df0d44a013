"""Fault 1: the generation service is killed at each step of a job. Another one completes it once the lease has expired,
and no partial file is ever under a final name."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from dgx_music.storage.v1 import storage_pb2 as pb
from tests.support.tone_engine_process import Fifo
from tests.support.tone_model import RATE_HZ
from tests.support.tone_processes import ToneProcesses, tone_processes

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]
OTHER = "generation-2"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ToneProcesses]:
    """Storage, export and a worker that does one job at a time. Each test starts its own worker besides."""
    async with tone_processes(tmp_path_factory.mktemp("services") / "data", "storage", "export") as services:
        await services.start_worker(OTHER, DGX_MUSIC_WORKER_SLOTS="1", DGX_MUSIC_LEASE_SECONDS="60")
        yield services


async def kill_at(services: ToneProcesses, tmp_path: Path, failpoint: str, prompt: str = "a") -> tuple[str, Fifo]:
    """Has a worker die at a failpoint, while the other one is busy. Returns the generation that it had claimed, and
    what makes the other one free."""
    busy = Fifo(tmp_path / "busy")
    await services.wait_until(await services.create(busy.prompt), is_processing)
    await services.start_worker(failpoint=failpoint)
    generation_id = await services.create(prompt)
    async with asyncio.timeout(60):
        assert await services.running.pop("generation").wait() == -signal.SIGKILL
    return generation_id, busy


def is_processing(generation: pb.Generation) -> bool:
    return generation.state == pb.GENERATION_STATE_PROCESSING


@pytest.mark.parametrize(
    "failpoint", ["after_claim:kill", "before_chunk:kill", "before_chunk:kill@3", "before_end:kill"]
)
async def test_job_of_a_killed_worker_is_completed_by_another(
    services: ToneProcesses, tmp_path: Path, failpoint: str
) -> None:
    generation_id, busy = await kill_at(services, tmp_path, f"generation.{failpoint}")
    assert services.files_of(generation_id) == []
    await busy.release()
    done = await services.wait_until_completed(generation_id)
    assert done.attempt > 1
    assert len(services.samples_of(done)) == RATE_HZ
    assert services.problems() == []


async def test_job_of_a_worker_killed_between_two_renewals_is_completed_by_another(
    services: ToneProcesses, tmp_path: Path
) -> None:
    fifo = Fifo(tmp_path / "fifo")
    generation_id, busy = await kill_at(services, tmp_path, "generation.before_renewal:kill@3", fifo.prompt)
    await busy.release()
    await fifo.release()
    assert (await services.wait_until_completed(generation_id)).attempt > 1


async def test_file_of_a_worker_killed_before_it_completed_is_kept(services: ToneProcesses, tmp_path: Path) -> None:
    generation_id, busy = await kill_at(services, tmp_path, "generation.before_complete:kill")
    [path] = services.files_of(generation_id)
    await busy.release()
    done = await services.wait_until_completed(generation_id)
    assert services.data_dir / done.file_path == path
    assert dict(done.metadata)["audio_attempt"] == 1, "it was generated again"
    assert services.problems() == []


async def test_completion_of_a_worker_killed_after_it_stands(services: ToneProcesses, tmp_path: Path) -> None:
    generation_id, busy = await kill_at(services, tmp_path, "generation.after_complete:kill")
    done = await services.wait_until_completed(generation_id)
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 1)
    await busy.release()
    assert services.problems() == []
