"""Fault 25: storage fails or stops while it is told that a job is complete. The finished music is kept, and no attempt
generates it again."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import urllib.request
from collections.abc import AsyncIterator
from contextlib import closing

import pytest
import pytest_asyncio

from tests.support.processes import free_ports
from tests.support.tone_processes import ToneProcesses, tone_processes

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ToneProcesses]:
    async with tone_processes(tmp_path_factory.mktemp("services") / "data", "storage", "export") as services:
        yield services


async def stop_before_completion(services: ToneProcesses, lease_seconds: int) -> str:
    """Has a worker stop when its file is finished. Returns the generation."""
    await services.start_worker(
        failpoint="generation.before_complete:stop",
        DGX_MUSIC_LEASE_SECONDS=str(lease_seconds),
        DGX_MUSIC_WORKER_SLOTS="1",
    )
    generation_id = await services.create()
    await services.running["generation"].wait_until_stopped()
    await services.kill("storage")
    return generation_id


async def test_unexpected_error_of_storage_costs_no_finished_music(services: ToneProcesses) -> None:
    generation_id = await stop_before_completion(services, lease_seconds=4)
    await services.start("storage", DGX_MUSIC_FAILPOINT="storage.before_commit:raise")
    worker = services.running["generation"]
    worker.resume()
    await worker.wait_for_event("job_ended")
    assert len(services.files_of(generation_id)) == 1
    await services.kill("storage")
    await services.start("storage")
    done = await services.wait_until_completed(generation_id)
    assert done.attempt == 2
    assert worker.log().count('"export_resumed"') == 1
    await services.kill("generation")
    assert services.problems() == []


async def test_completion_that_a_stopping_storage_cancels_is_repeated(services: ToneProcesses) -> None:
    generation_id = await stop_before_completion(services, lease_seconds=120)
    port = free_ports(1)[0]
    await services.start("storage", DGX_MUSIC_GRACE_SECONDS="0.1", DGX_MUSIC_METRICS_PORT=str(port))
    with closing(sqlite3.connect(services.data_dir / "dgx_music.db", isolation_level=None)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        services.resume("generation")
        while 'grpc_method="CompleteGeneration"' not in await asyncio.to_thread(read_metrics, port):
            pass
        await services.kill("storage", signal.SIGTERM)
    await services.start("storage")
    done = await services.wait_until_completed(generation_id)
    assert done.attempt == 1
    await services.kill("generation")
    assert services.problems() == []


def read_metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as page:
        return str(page.read().decode())
