"""Tells systemd that the server is ready, that it stops, and that its event loop runs: units of `Type=notify`.

The protocol: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


@asynccontextmanager
async def reporting_to_systemd() -> AsyncIterator[None]:
    """The server is ready when the block begins, and stops when it ends. Meanwhile the watchdog is reset twice in its
    time. Does nothing where no service manager has started the process."""
    _notify("READY=1")
    seconds = _watchdog_seconds()
    watchdog = asyncio.create_task(_reset_watchdog(seconds / 2)) if seconds else None
    try:
        yield
    finally:
        _notify("STOPPING=1")
        if watchdog is not None:
            watchdog.cancel()


async def _reset_watchdog(period_seconds: float) -> None:
    while True:
        _notify("WATCHDOG=1")
        await asyncio.sleep(period_seconds)


def _watchdog_seconds() -> float:
    """Returns 0.0 if there is no watchdog, or if it is that of another process."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    with suppress(ValueError):
        return int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
    return 0.0


def _notify(state: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
