"""Blocking work whose caller is cancelled."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import BinaryIO

import pytest

from export_service.threads import run_in_thread


class BlockedOpen:
    """Opens a file, but not before `proceed` is set."""

    def __init__(self) -> None:
        self.started, self.proceed = threading.Event(), threading.Event()
        self.file: BinaryIO | None = None

    def open(self, path: Path) -> BinaryIO:
        self.started.set()
        assert self.proceed.wait(60)
        self.file = path.open("rb")
        return self.file


async def cancel_during(blocked: BlockedOpen, path: Path) -> None:
    task = asyncio.create_task(run_in_thread(blocked.open, path))
    assert await asyncio.to_thread(blocked.started.wait, 60)
    task.cancel()
    await asyncio.sleep(0)  # Delivers the cancellation.
    assert not task.done(), "it must wait for the work to end"
    blocked.proceed.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_call_closes_opened_file(tmp_path):
    path, blocked = tmp_path / "a", BlockedOpen()
    path.touch()
    await cancel_during(blocked, path)
    assert blocked.file is not None
    assert blocked.file.closed


async def test_cancelled_call_raises_cancelled_error_despite_failure(tmp_path):
    await cancel_during(BlockedOpen(), tmp_path / "missing")
