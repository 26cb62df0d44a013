"""Runs `dgx-music` so that the process counts its objects when it is asked to: a leak shows as counts that grow with
the work, long before it shows in the memory.

python -m tests.support.counted_process serve storage
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
from collections import Counter, deque
from pathlib import Path
from types import FrameType

from gateway.cli.main import main

FILE_VARIABLE = "TEST_COUNTS_FOLDER"
ENTRIES = "entries of containers"
"""The lengths of all dicts, lists, sets and deques together: what is kept by key or in a row, of whatever type."""
_CONTAINERS = dict, list, set, deque
_WAIT_SECONDS = 60.0


def count_objects() -> dict[str, int]:
    """Returns how many objects of each type are alive."""
    gc.collect()
    gc.collect()  # Of what the first one has finalized.
    alive = gc.get_objects()
    counts = Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in alive)
    # A dict of plain values is not tracked itself, but what refers to it is.
    containers = {id(one): len(one) for one in alive if isinstance(one, _CONTAINERS)}
    containers.pop(id(alive), None)
    for start in range(0, len(alive), 10_000):
        for one in gc.get_referents(*alive[start : start + 10_000]):
            if isinstance(one, _CONTAINERS) and one is not alive:
                containers[id(one)] = len(one)
    counts[ENTRIES] = sum(containers.values())
    return dict(counts)


async def read_counts(pid: int, folder: Path) -> dict[str, int]:
    """Returns the counts of a process that was started with this folder in FILE_VARIABLE."""
    file = folder / f"{pid}.json"
    file.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR1)
    async with asyncio.timeout(_WAIT_SECONDS):
        while not file.exists():  # noqa: ASYNC110 (another process writes it)
            await asyncio.sleep(0.02)
    counts: dict[str, int] = json.loads(file.read_text())
    return counts


def _write_counts(number: int, frame: FrameType | None) -> None:
    file = Path(os.environ[FILE_VARIABLE], f"{os.getpid()}.json")
    part = file.with_suffix(".part")
    part.write_text(json.dumps(count_objects()))
    part.rename(file)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _write_counts)
    main()
