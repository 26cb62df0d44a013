"""The command line of a fuzzer that sends requests to services as processes."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.support.service_processes import ServiceProcesses, service_processes

Fuzz = Callable[[ServiceProcesses, int, int], Awaitable[tuple[Counter[Any], list[str]]]]
"""Sends a number of requests, drawn from a seed. Returns how often each outcome came, and the problems."""


def run_command(fuzz: Fuzz, description: str, default_count: int) -> int:
    """Returns the exit status: 1 if there are problems."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--count", type=int, default=default_count, help="number of requests (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dgx-music-fuzz-") as folder:
        outcomes, problems = asyncio.run(_run(fuzz, Path(folder), options.count, options.seed))
    print(*problems, sep="\n")
    print(f"{options.count} requests, seed {options.seed}: {dict(outcomes)}, {len(problems)} problems")
    return 1 if problems else 0


async def _run(fuzz: Fuzz, folder: Path, count: int, seed: int) -> tuple[Counter[Any], list[str]]:
    async with service_processes(folder / "data") as services:
        return await fuzz(services, count, seed)
