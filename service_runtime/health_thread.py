"""A thread for health checks alone, so that they don't queue up behind the work of a busy service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class HealthThread:
    """Runs one blocking check at a time. Call `stop` at the end."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="health")

    async def run(self, check: Callable[[], T]) -> T:
        """Runs the check in the thread and returns its result. A check that hangs lets the following ones wait."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, check)

    async def stop(self) -> None:
        """Waits for a running check to end."""
        await asyncio.to_thread(self._executor.shutdown, cancel_futures=True)
