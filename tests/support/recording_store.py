"""Gives a `Store` that records when work on the database has finished, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from storage_service.async_store import Store
from storage_service.config import StorageSettings
from storage_service.db.models import Generation
from storage_service.domain.creation import NewGeneration

New = Callable[..., NewGeneration]
Row = Callable[..., Generation]
TOKEN = "0123456789abcdef0123456789abcdef"


class RecordingStore(Store):
    """Sets `work_done` and counts in `work_count` whenever work on the database has finished."""

    def __init__(self, settings: StorageSettings) -> None:
        super().__init__(settings)
        self.work_done = asyncio.Event()
        self.work_count = 0

    async def _run_in_thread(self, work: Callable[[], Any]) -> Any:
        try:
            return await super()._run_in_thread(work)
        finally:
            self.work_count += 1
            self.work_done.set()


@asynccontextmanager
async def open_store(settings: StorageSettings) -> AsyncIterator[RecordingStore]:
    opened = RecordingStore(settings)
    try:
        await opened.open()
        yield opened
    finally:
        await opened.close()
