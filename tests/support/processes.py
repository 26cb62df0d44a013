"""What tests that run real processes share."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

_PORTS = range(12_000, 32_000)
"""Below those that systems give to clients: what is free here stays free until the test's server takes it."""


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on."""
    free: list[int] = []
    with ExitStack() as stack:
        while len(free) < count:
            port = random.choice(_PORTS)
            with suppress(OSError):  # Somebody listens on it.
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
                free.append(port)
    return free


@asynccontextmanager
async def process(*command: str | Path, **options: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process; killed with the block, if it has not ended by then."""
    started = await asyncio.create_subprocess_exec(*command, **options)
    try:
        yield started
    finally:
        with suppress(ProcessLookupError):
            started.kill()
        await started.wait()


async def until_serving(process: asyncio.subprocess.Process) -> None:
    """Reads a server's log up to the line that says that it serves."""
    assert process.stderr is not None
    seen = b""
    while line := await asyncio.wait_for(process.stderr.readline(), 60):
        seen += line
        if b'"serving"' in line:
            return
    raise AssertionError(seen.decode())
