"""What tests that run real processes share."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [taken.getsockname()[1] for taken in sockets]


async def until_serving(process: asyncio.subprocess.Process) -> None:
    """Reads a server's log up to the line that says that it serves."""
    assert process.stderr is not None
    seen = b""
    while line := await asyncio.wait_for(process.stderr.readline(), 60):
        seen += line
        if b'"serving"' in line:
            return
    raise AssertionError(seen.decode())
