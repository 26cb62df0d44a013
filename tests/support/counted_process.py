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
import sys
from collections import Counter, deque
from pathlib import Path
from types import FrameType

from gateway.cli.main import main

FILE_VARIABLE = "TEST_COUNTS_FOLDER"
OWN = "dgx_music.", "service_runtime.", "storage_service.", "export_service.", "generation_service.", "gateway."
"""What the modules of the project begin with."""
_CONTAINERS = dict, list, set, deque
_WAIT_SECONDS = 60.0


def count_objects() -> dict[str, int]:
    """Returns how many objects of each type are alive, and how many entries the containers have that are an attribute
    of one of ours, or of a module: what is kept by key or in a row, of whatever type."""
    gc.collect()
    gc.collect()  # Of what the first one has finalized.
    alive = gc.get_objects()
    counts = Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in alive)
    owners = [one for one in alive if str(type(one).__module__).startswith(OWN)]
    for owner in (*owners, *(module for name, module in sys.modules.items() if name.startswith(OWN))):
        kind = getattr(owner, "__name__", f"{type(owner).__module__}.{type(owner).__qualname__}")
        names = {*getattr(owner, "__dict__", ()), *getattr(type(owner), "__slots__", ())} - {"__builtins__", "__dict__"}
        for name in names:
            value = getattr(owner, name, None)
            if isinstance(value, _CONTAINERS):
                counts[f"{kind}.{name}"] += len(value)
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
