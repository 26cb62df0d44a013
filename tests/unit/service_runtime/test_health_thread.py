"""The thread of health checks."""

from __future__ import annotations

import asyncio
import threading

from service_runtime.health_thread import HealthThread


async def test_check_runs_while_every_thread_of_the_default_pool_is_busy() -> None:
    release, checks = threading.Event(), HealthThread()
    loop = asyncio.get_running_loop()
    busy = [loop.run_in_executor(None, release.wait) for _ in range(64)]
    try:
        assert await asyncio.wait_for(checks.run(lambda: "done"), 60) == "done"
    finally:
        release.set()
        await asyncio.gather(*busy)
        await checks.stop()
