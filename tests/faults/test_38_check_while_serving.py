"""Fault 38: `db check --files`, while servers work, raises a false alarm over what is half done at the moment, misses
what is wrong, or leaves a copy of the database behind when it is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dgx_music.audio.v1 import audio_pb2
from dgx_music.export.v1 import export_pb2
from dgx_music.storage.v1 import storage_pb2 as pb
from gateway.cli.commands.database.db_check import find_problems
from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.maintenance import backup
from storage_service.maintenance.integrity import Finding
from storage_service.maintenance.temporary_copies import SUFFIX
from tests.support.service_processes import ServiceProcesses, service_processes

JOBS = 16
CHECKS = 6
SKETCH = {"DGX_MUSIC_MODELS": "sketch", "DGX_MUSIC_LOG_LEVEL": "info"}


async def find_all(url: str, data_dir: Path, settle_seconds: float = 2.0) -> list[Finding]:
    def check() -> list[Finding]:
        with Database(url) as database:
            return list(find_problems(database, data_dir, read_files=True, settle_seconds=settle_seconds))

    return await asyncio.to_thread(check)


class Jobs:
    """A stream of jobs that are made, tagged, rendered and deleted, a few at a time."""

    def __init__(self, services: ServiceProcesses) -> None:
        self._music = services.music
        self.kept: list[str] = []
        self._turn = asyncio.Semaphore(4)

    async def run(self, number: int) -> None:
        async with self._turn:
            request = pb.CreateGenerationRequest(prompt=f"piece {number}", model_name="sketch", duration_seconds=1)
            key = (await self._music.CreateGeneration(request, timeout=60)).generation.id
            if number % 5 == 4:
                await self._music.CancelGeneration(pb.CancelGenerationRequest(id=key), timeout=60)
                return
            async for change in self._music.WatchGeneration(pb.WatchGenerationRequest(id=key), timeout=120):
                state = change.generation.state
            assert state == pb.GENERATION_STATE_COMPLETED
            for title in ("one", "two"):
                await self._music.EditTags(export_pb2.EditTagsRequest(generation_id=key, title=title), timeout=60)
            output = audio_pb2.OutputOptions(format=audio_pb2.FILE_FORMAT_FLAC_16)
            await self._music.Render(export_pb2.RenderRequest(generation_id=key, output=output), timeout=60)
            if number % 2:
                await self._music.DeleteGeneration(pb.DeleteGenerationRequest(id=key), timeout=60)
            else:
                self.kept.append(key)


@pytest.mark.slow
async def test_no_false_alarm_while_jobs_run_and_every_damage_found(url: str, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with service_processes(data_dir, **SKETCH, DGX_MUSIC_DATABASE_URL=url) as services:
        jobs = Jobs(services)
        running = asyncio.gather(*(jobs.run(number) for number in range(JOBS)))
        found = [finding for _ in range(CHECKS) for finding in await find_all(url, data_dir, settle_seconds=0.5)]
        assert found == []
        await running
        [render, *_] = data_dir.glob("renders/*-*/*.flac")
        render.write_bytes(render.read_bytes() + b"\0")
        [output, *_] = data_dir.glob(f"outputs/*/*/*/{jobs.kept[1]}.*")
        output.unlink()
        found = await find_all(url, data_dir)
        where = {finding.where: finding.problem for finding in found}
        assert where.pop(f"file {render.relative_to(data_dir)}") == "has changed since it was written"
        assert where.pop(f"generation {jobs.kept[1]}") == f"its file {output.relative_to(data_dir)} is missing"
        assert where == {}
    assert all(finding.remedy for finding in found)


PROGRAM = """
import sys
from pathlib import Path
from storage_service.maintenance import backup
from storage_service.db.database import Database
backup.STEP_PAGES = 2
with Database(sys.argv[2]) as database:
    if sys.argv[1] == "check":
        with backup.snapshot(database):
            pass
    else:
        backup.create_backup(database, Path(sys.argv[1]))
"""


def run_killed(what: str, url: str) -> None:
    environment = {**os.environ, "DGX_MUSIC_FAILPOINT": "storage.during_copy:kill@2"}
    command = [sys.executable, "-c", PROGRAM, what, url]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL


def test_copy_of_a_killed_check_or_backup_is_removed_by_the_next(tmp_path: Path) -> None:
    """Each is as large as the database, and holds the prompts."""
    url = f"sqlite:///{tmp_path}/test.db"
    schema.upgrade(url)
    copy = tmp_path / "backup.db"
    with Database(url) as database:

        def names() -> set[str]:
            return {path.name for path in tmp_path.iterdir() if not path.name.startswith("test.db")}

        run_killed("check", url)
        [of_check] = names()
        run_killed(f"{copy}.other", url)
        [of_backup] = names()  # That of the check is gone.
        assert of_check != of_backup
        assert of_check.endswith(SUFFIX)
        assert of_backup.endswith(SUFFIX)
        with backup.snapshot(database):
            pass
        backup.create_backup(database, copy)
        assert names() == {"backup.db"}
        with backup.snapshot(database), backup.snapshot(database):  # Those of running processes stay.
            assert len(names()) == 3
