"""Fault 25: storage fails while it is told that a job is complete. The finished music is kept, and no attempt generates
it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tone_processes import tone_processes

pytestmark = pytest.mark.slow


async def test_completion_that_storage_does_not_take_costs_no_music(tmp_path: Path) -> None:
    async with tone_processes(tmp_path / "data", "storage", "export") as services:
        await services.start_worker(failpoint="generation.before_complete:stop", DGX_MUSIC_LEASE_SECONDS="20")
        generation_id = await services.create()
        worker = services.running["generation"]
        await worker.wait_until_stopped()
        await services.kill("storage")
        await services.start("storage", DGX_MUSIC_FAILPOINT="storage.before_commit:raise")
        worker.resume()
        await worker.wait_for_event("job_ended")
        assert len(services.files_of(generation_id)) == 1
        await services.kill("storage")
        await services.start("storage")
        await services.wait_until_completed(generation_id)
        assert worker.log().count('"export_resumed"') == 1
        await services.kill("generation")
        assert services.problems() == []
