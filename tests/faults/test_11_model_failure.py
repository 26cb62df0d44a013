"""Fault 11: the model raises, runs out of memory or loses the device in the middle of a batch. Its request fails with
the reason, its neighbours go on where they can, and a process without a device is replaced."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from dgx_music.storage.v1 import storage_pb2 as pb
from tests.support.tone_engine_process import Fifo
from tests.support.tone_processes import ToneProcesses, tone_processes

pytestmark = pytest.mark.asyncio(loop_scope="module")
SERVICE = "dgx_music.generation.v1.GenerationService"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ToneProcesses]:
    async with tone_processes(tmp_path_factory.mktemp("services") / "data", "storage", "export") as services:
        yield services


async def create_mates(services: ToneProcesses, tmp_path: Path, prompt: str) -> tuple[str, list[str], list[Fifo]]:
    """Creates a generation that fails, beside two that are running. Returns it, and those."""
    fifos = [Fifo(tmp_path / name) for name in "ab"]
    mates = [await services.create(fifo.prompt) for fifo in fifos]
    for mate in mates:
        await services.wait_until(mate, lambda one: one.stage == pb.GENERATION_STAGE_GENERATING)
    return await services.create(prompt, max_attempts=1), mates, fifos


@pytest.mark.slow
async def test_failure_of_one_request_leaves_the_others_of_its_process_alone(
    services: ToneProcesses, tmp_path: Path
) -> None:
    await services.start_worker(DGX_MUSIC_DEVICES="cpu,cpu", DGX_MUSIC_MAX_BATCH_SIZE="4")
    undisturbed = services.samples_of(await services.wait_until_completed(await services.create("a")))
    for prompt, reason in (
        ("raise", "model 'tone' failed at step 3: ValueError: a string broke"),
        ("memory", "model 'tone' ran out of memory at step 3, where it needed 20.00 MiB more"),
    ):
        (folder := tmp_path / prompt).mkdir()
        failing, mates, fifos = await create_mates(services, folder, prompt)
        for fifo in fifos:
            await fifo.release()
        failed = await services.wait_until_ended(failing)
        assert failed.state == pb.GENERATION_STATE_FAILED
        assert failed.error_message.startswith(reason)
        for mate in mates:
            done = await services.wait_until_ended(mate)
            if done.state == pb.GENERATION_STATE_FAILED:  # It was in the failing batch, which can't be told apart.
                assert done.error_message.startswith(reason)
            else:
                assert np.array_equal(services.samples_of(done), undisturbed)
    await services.kill("generation")
    assert services.violations() == []
