"""Fault 11 in an engine process: a job that kills its process each time fails in the end, with the reason, and the
service goes on with the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgx_music.generation.v1 import generation_pb2
from dgx_music.storage.v1 import storage_pb2 as pb
from tests.support.tone_processes import tone_processes

pytestmark = pytest.mark.slow


async def test_job_that_kills_its_engine_process_each_time_fails_in_the_end(tmp_path: Path) -> None:
    async with tone_processes(tmp_path / "data", "storage", "export") as services:
        await services.start_worker(
            failpoint="engine.before_block:kill@3", DGX_MUSIC_DEVICES="cpu,cpu", DGX_MUSIC_LEASE_SECONDS="30"
        )
        deadly = await services.create(seconds=1.0, max_attempts=1)
        failed = await services.wait_until_ended(deadly)
        assert failed.state == pb.GENERATION_STATE_FAILED
        assert failed.error_message == "the engine process failed: it was killed by SIGKILL; retry"
        assert failed.attempt >= 3, "the first two attempts are free"
        assert services.files_of(deadly) == []
        await services.wait_until_completed(await services.create(seconds=0.2))
        status = await services.generation.GetEngineStatus(generation_pb2.GetEngineStatusRequest(), timeout=60)
        assert sum(engine.restarts for engine in status.engines) >= 2
        assert services.problems() == []
