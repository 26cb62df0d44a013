"""Gives free ports, child processes that end with a block, and a wait for a server to start."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

_SLICES = 4
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS = range(12_000 + _WORKER % _SLICES, 32_000, _SLICES)
"""Below the ephemeral range, so that no client takes a free port before the test's server binds it. Tests that run at
the same time have other ports."""
_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Returns loopback ports on which nothing listens, and that were not returned lately."""
    if len(_given) > len(_PORTS) // 2:
        _given.clear()
    free: list[int] = []
    with ExitStack() as stack:
        while len(free) < count:
            port = random.choice(_PORTS)
            if port in _given:
                continue
            with suppress(OSError):  # The port is in use.
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
                free.append(port)
                _given.add(port)
    return free


@asynccontextmanager
async def process(*command: str | Path, **options: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs a process; kills it at the end of the block if it has not ended by then."""
    started = await asyncio.create_subprocess_exec(*command, **options)
    try:
        yield started
    finally:
        with suppress(ProcessLookupError):
            started.kill()
        await started.wait()


async def wait_until_serving(process: asyncio.subprocess.Process) -> None:
    """Reads the server's log from standard error up to the event "serving"."""
    assert process.stderr is not None
    seen = b""
    while line := await asyncio.wait_for(process.stderr.readline(), 60):
        seen += line
        if b'"serving"' in line:
            return
    raise AssertionError(seen.decode())
