"""Services that have done a thousand jobs have no more objects, threads and open files than after the first hundred."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from tests.support.counted_process import FILE_VARIABLE, OWN, read_counts
from tests.support.mixed_clients import MixedClients
from tests.support.service_processes import SERVICES, service_processes

WARM_UP_JOBS = 60
JOBS = 40
"""Between two counts. What every job leaves behind grows by so much each time; what only some do, by a tenth."""
COUNTS = 3
BOUNDED = "FairQueue._heads", "music_theory.Chord", "throughput._Bucket", "Throughput._buckets"
"""Grow for longer than this test: at most 64 outdated heads, a cache of 512 bars, and 100 counts of the last
seconds."""
MODULE = "tests.support.counted_process"


def leaks(counts: list[dict[str, int]]) -> dict[str, list[int]]:
    """Returns which of our types, and which of their containers, grew each time, with that growth.

    What is only kept for a while, or as often as there are calls at a time, does not grow each time.
    """
    growth = {
        name: [after.get(name, 0) - before.get(name, 0) for before, after in pairwise(counts)]
        for name in counts[-1]
        if name.startswith(OWN) and not name.endswith(BOUNDED)
    }
    return {name: each for name, each in growth.items() if min(each) >= JOBS // 10}


@pytest.mark.slow
async def test_services_keep_nothing_of_finished_work(tmp_path: Path) -> None:
    data_dir, files = tmp_path / "data", tmp_path / "files"
    files.mkdir()
    async with service_processes(data_dir, "storage", **{FILE_VARIABLE: str(tmp_path)}) as services:
        await services.kill("storage")
        await services.start(*SERVICES, module=MODULE)
        clients = MixedClients(services.address("gateway"), files, seed=1)
        await clients.run(WARM_UP_JOBS)
        counts: dict[str, list[dict[str, int]]] = {name: [] for name in SERVICES}
        resources: dict[str, list[tuple[int, int]]] = {name: [] for name in SERVICES}
        for _ in range(1 + COUNTS):
            for name in SERVICES:
                pid = services.running[name].pid
                counts[name].append(await read_counts(pid, tmp_path))
                process = psutil.Process(pid)
                resources[name].append((process.num_threads(), process.num_fds()))
            await clients.run(JOBS)
        assert {name: leaks(each) for name, each in counts.items()} == {name: {} for name in SERVICES}
        for name, (first, *_, last) in resources.items():
            assert last[0] <= first[0] + 8, f"threads of {name}"
            assert last[1] <= first[1] + 8, f"open files of {name}"
    assert not list((data_dir / "spool").glob("**/*.pcm"))
