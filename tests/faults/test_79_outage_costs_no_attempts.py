"""Fault 79: the object storage is away for longer than the attempts of any generation last. None fails: the worker
hands them back, claims no more until export can write again, and completes them from the samples that export keeps."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dgx_music.storage.v1 import storage_pb2 as pb
from tests.support.health import SERVING, wait_for_health
from tests.support.object_storage import library_keys, read_hash
from tests.support.s3_server import s3_server
from tests.support.tone_processes import tone_processes

pytestmark = pytest.mark.slow

JOBS = 4


def has_been_handed_back(generation: pb.Generation) -> bool:
    return generation.state == pb.GENERATION_STATE_PENDING and generation.attempt > 0


async def test_generations_outlast_the_object_storage(tmp_path: Path) -> None:
    with s3_server() as server, server.bucket() as bucket:
        settings, store = server.settings(bucket), server.store(bucket)
        async with tone_processes(tmp_path / "data", "storage") as services:
            await services.start("export", module="tests.support.impatient_export_server", **settings)
            await services.start_worker()
            await wait_for_health(services.channel("export"), SERVING)
            server.kill()
            # A single attempt that counted would be the last one.
            tried = [await services.create(max_attempts=1, seed=seed) for seed in range(JOBS)]
            for generation_id in tried:
                waiting = await services.wait_until(generation_id, has_been_handed_back)
                assert waiting.error_message.startswith("export: the object storage failed")
            worker = services.running["generation"]
            await worker.wait_for_event("claim_failed")
            untried = await services.create(max_attempts=1)
            await asyncio.to_thread(server.start)
            assert (await services.get(untried)).attempt == 0
            done = [await services.wait_until_ended(generation_id) for generation_id in [*tried, untried]]
            assert [one.error_message for one in done if one.state != pb.GENERATION_STATE_COMPLETED] == []
            assert worker.log().count('"export_resumed"') >= JOBS
            assert library_keys(store) == {one.file_path for one in done}
            for one in done:
                assert read_hash(store, one.file_path) == dict(one.metadata)["file_sha256"]
