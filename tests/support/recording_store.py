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


class SeenStore(Store):
    """Tells when work in the database has ended, and how often."""

    def __init__(self, settings: StorageSettings) -> None:
        super().__init__(settings)
        self.worked = asyncio.Event()
        self.works = 0

    async def _run_in_thread(self, work: Callable[[], Any]) -> Any:
        try:
            return await super()._run_in_thread(work)
        finally:
            self.works += 1
            self.worked.set()


@asynccontextmanager
async def open_store(settings: StorageSettings) -> AsyncIterator[SeenStore]:
    opened = SeenStore(settings)
    try:
        await opened.open()
        yield opened
    finally:
        await opened.close()
