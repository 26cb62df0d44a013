"""An edit whose worker is killed, or whose file finds no room on the disk, and two edits of one source at once: the
result keeps the rest of the source to the bit."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.conditioning_pb2 import EDIT_KIND_EXTEND_RIGHT, EDIT_KIND_REPAINT, Edit
from service_runtime.generated_length import EDIT_JOINT_SECONDS, EDIT_LEAD_SECONDS
from tests.support.tone_engine_process import Fifo
from tests.support.tone_model import RATE_HZ
from tests.support.tone_processes import ToneProcesses, tone_processes

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]
SECONDS, START, END = 6.0, 2.0, 4.0
OTHER = "generation-2"
LONG_SECONDS = 600.0
"""38 MB of float32."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ToneProcesses]:
    """Storage, export and a worker that does one job at a time."""
    async with tone_processes(tmp_path_factory.mktemp("services") / "data", "storage", "export") as services:
        await services.start_worker(OTHER, DGX_MUSIC_WORKER_SLOTS="1")
        yield services


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def source(services: ToneProcesses) -> pb.Generation:
    return await services.wait_until_completed(await services.create("source", SECONDS))


async def create_repaint(services: ToneProcesses, source: pb.Generation, prompt: str = "a", **fields: object) -> str:
    edit = Edit(source_id=source.id, kind=EDIT_KIND_REPAINT, start_seconds=START, end_seconds=END)
    return await services.create(prompt, SECONDS, edit=edit, **fields)


def keeps_the_rest(services: ToneProcesses, source: pb.Generation, done: pb.Generation) -> bool:
    original, result = services.samples_of(source), services.samples_of(done)
    head, tail = (round(seconds * RATE_HZ) for seconds in (START - EDIT_LEAD_SECONDS, END + EDIT_JOINT_SECONDS))
    return np.array_equal(result[:head], original[:head]) and np.array_equal(result[tail:], original[tail:])


@pytest.mark.parametrize("failpoint", ["before_chunk:kill@2", "before_chunk:kill@8", "before_end:kill"])
async def test_edit_of_a_killed_worker_is_completed_by_another(
    services: ToneProcesses, source: pb.Generation, tmp_path: Path, failpoint: str
) -> None:
    busy = Fifo(tmp_path / "busy")
    await services.create(busy.prompt)
    await busy.reached()
    await services.start_worker(failpoint=f"generation.{failpoint}")
    generation_id = await create_repaint(services, source)
    async with asyncio.timeout(60):
        assert await services.running.pop("generation").wait() == -signal.SIGKILL
    assert services.files_of(generation_id) == []
    await busy.release()
    done = await services.wait_until_completed(generation_id)
    assert keeps_the_rest(services, source, done)
    assert services.problems() == []


async def test_edits_of_one_source_at_once_are_independent(services: ToneProcesses, source: pb.Generation) -> None:
    await services.start_worker()
    edit = Edit(source_id=source.id, kind=EDIT_KIND_EXTEND_RIGHT, added_seconds=2.0)
    extended = await services.create("b", SECONDS + 2.0, edit=edit)
    repainted = [await create_repaint(services, source, prompt) for prompt in "ab"]
    for generation_id in repainted:
        assert keeps_the_rest(services, source, await services.wait_until_completed(generation_id))
    longer = services.samples_of(await services.wait_until_completed(extended))
    original = services.samples_of(source)
    kept = len(original) - round(EDIT_LEAD_SECONDS * RATE_HZ)
    assert np.array_equal(longer[:kept], original[:kept])
    assert await services.wait_until_completed(source.id) == source
    await services.kill("generation")


async def test_edit_that_finds_no_room_keeps_its_samples_for_the_next_attempt(
    services: ToneProcesses, source: pb.Generation
) -> None:
    await services.kill("export")
    await services.start("export", DGX_MUSIC_FAILPOINT="export.before_rename:ENOSPC")
    generation_id = await create_repaint(services, source, max_attempts=1)
    failed = await services.wait_until_ended(generation_id)
    assert failed.error_message.endswith("(RESOURCE_EXHAUSTED)")
    assert services.files_of(generation_id) == []
    await services.kill("export")
    await services.start("export")
    await services.storage.RetryGeneration(pb.RetryGenerationRequest(id=generation_id), timeout=60)
    done = await services.wait_until_completed(generation_id)
    assert dict(done.metadata)["audio_attempt"] == 1, "it was generated again"
    assert keeps_the_rest(services, source, done)


async def test_memory_of_an_edit_does_not_grow_with_its_source(services: ToneProcesses, source: pb.Generation) -> None:
    longer = await services.wait_until_completed(await services.create("long", LONG_SECONDS))
    measured = [services.running[name] for name in (OTHER, "export")]
    await services.wait_until_completed(await create_repaint(services, source))  # The first one loads what it needs.
    before = [service.peak_memory_bytes() for service in measured]
    edit = Edit(source_id=longer.id, kind=EDIT_KIND_REPAINT, start_seconds=START, end_seconds=END)
    await services.wait_until_completed(await services.create("a", LONG_SECONDS, edit=edit))
    growth = [service.peak_memory_bytes() - earlier for service, earlier in zip(measured, before, strict=True)]
    assert max(growth) < LONG_SECONDS * RATE_HZ * 2 * 4 / 3, growth
