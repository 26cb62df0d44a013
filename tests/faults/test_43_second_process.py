"""Fault 43: another process opens the SQLite database of a running service, writes, and closes it. SQLite would delete
the WAL if it found no lock of the service's on the database, and what the service acknowledges from then on would be
lost. A process loses its locks when it closes any descriptor of the file, even one that SQLite has not opened."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable
from pathlib import Path

from dgx_music.storage.v1 import storage_pb2 as pb
from storage_service.db.sqlite import sqlite3
from tests.support.service_processes import service_processes

TIMEOUT_SECONDS = 60.0
OTHER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=60)
database.execute("CREATE TABLE other (x)")
database.commit()
database.close()
"""


async def test_nothing_is_lost_when_another_process_closes_the_database(tmp_path: Path) -> None:
    async with service_processes(tmp_path / "data", "storage") as services:
        request = pb.CreateGenerationRequest(
            prompt="house", model_name="x", duration_seconds=1, sample_rate_hz=8000, channels=1
        )
        # Several at once, so that the service opens more than one connection.
        calls: list[Awaitable[object]] = [
            services.storage.CreateGeneration(request, timeout=TIMEOUT_SECONDS) for _ in range(20)
        ]
        calls += [services.storage.GetStatistics(pb.GetStatisticsRequest(), timeout=TIMEOUT_SECONDS) for _ in range(20)]
        await asyncio.gather(*calls)
        file = services.data_dir / "dgx_music.db"
        inode = file.stat().st_ino
        assert f":{inode} " in Path("/proc/locks").read_text()  # SQLite's, that it has a connection.
        had_wal = file.with_name(file.name + "-wal").exists()
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", OTHER, str(file)], check=True)
        assert file.with_name(file.name + "-wal").exists() == had_wal
        acknowledged = (await services.storage.CreateGeneration(request, timeout=TIMEOUT_SECONDS)).generation.id
        await services.kill("storage")
        database = sqlite3.connect(file)
        found = database.execute("SELECT count(*) FROM generations WHERE id = ?", (acknowledged,)).fetchone()
        database.close()
        assert found == (1,)
