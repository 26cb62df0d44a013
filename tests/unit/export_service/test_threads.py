"""Blocking work whose caller goes away."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import BinaryIO

import pytest

from export_service.threads import on_thread


class Held:
    """Work that goes on when it is told to."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.file: BinaryIO | None = None

    def open(self, path: Path) -> BinaryIO:
        self.begun.set()
        assert self.go_on.wait(60)
        self.file = path.open("rb")
        return self.file


async def cancelled_meanwhile(held: Held, path: Path) -> None:
    task = asyncio.create_task(on_thread(held.open, path))
    assert await asyncio.to_thread(held.begun.wait, 60)
    task.cancel()
    await asyncio.sleep(0)  # It has been told.
    assert not task.done(), "it waits for the end of the work"
    held.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_file_that_was_opened_for_nobody_is_closed(tmp_path):
    path, held = tmp_path / "a", Held()
    path.touch()
    await cancelled_meanwhile(held, path)
    assert held.file is not None
    assert held.file.closed


async def test_an_error_that_nobody_hears_does_not_take_the_cancellation_s_place(tmp_path):
    await cancelled_meanwhile(Held(), tmp_path / "none")
