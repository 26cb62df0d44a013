"""Fault 29: a claim fails for another reason than an outage. The worker goes on claiming, and its health says why it
gets no jobs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dgx_music.errors import Unavailable
from dgx_music.storage.v1 import storage_pb2 as pb
from generation_service.worker import worker
from tests.support.failpoints import armed
from tests.support.service_stack import ServiceStack
from tests.support.tone_processes import tone_processes

UNUSABLE_NAMES = (b"not UTF-8 \xff", b"x" * 201, b"\x1b[31mred", b" ")


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[ServiceStack]:
    stack = ServiceStack(tmp_path)
    try:
        yield stack
    finally:
        await stack.stop_all()


async def has_failed(stack: ServiceStack) -> str:
    """Waits until the worker has found out that it can't claim; returns why."""
    assert stack.generation is not None
    async with asyncio.timeout(60):
        while True:
            try:
                await stack.generation.check()
            except Unavailable as error:
                if error.reason == "WORKER_STOPPED":
                    return error.message


async def test_worker_goes_on_after_an_unexpected_error(stack: ServiceStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "INITIAL_DELAY_SECONDS", 0.1)
    await stack.start("storage", "export")
    with armed("generation.before_claim:raise"):
        await stack.start("generation")
        generation_id = await stack.create()
        reason = await has_failed(stack)
    assert reason == "the worker can't claim jobs: RuntimeError: failpoint generation.before_claim"
    done = await stack.wait_until_ended(generation_id)
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 1)
    assert stack.generation is not None
    await stack.generation.check()


async def test_worker_that_storage_rejects_is_not_healthy(stack: ServiceStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DGX_MUSIC_SERVICE_TOKEN", "storage" * 8)
    monkeypatch.setenv("DGX_MUSIC_REQUIRE_TOKENS", "true")
    await stack.start("storage", "export")
    monkeypatch.setenv("DGX_MUSIC_SERVICE_TOKEN", "generation" * 8)
    await stack.start("generation")
    assert "token" in await has_failed(stack)


@pytest.mark.slow
async def test_models_with_unusable_names_do_not_keep_the_worker_from_claiming(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    for kind, file in ((b"models", b"state_dict.bin"), (b"adapters", b"adapter_config.json")):
        for name in UNUSABLE_NAMES:
            folder = os.path.join(os.fsencode(data_dir), kind, name)
            os.makedirs(folder)
            Path(os.fsdecode(os.path.join(folder, file))).write_bytes(b"{}")
    async with tone_processes(data_dir, "storage", "export", "generation") as services:
        generation_id = await services.create(model_name="sketch", sample_rate_hz=32_000)
        await services.wait_until_completed(generation_id)
