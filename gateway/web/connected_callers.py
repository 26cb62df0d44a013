"""Ends the work for a caller who has gone away, or whom the server has to leave."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive

from gateway.web.request_log import CutOff


async def run_while_connected(
    work: Coroutine[Any, Any, None] | asyncio.Future[None], receive: Receive, stopping: asyncio.Event | None = None
) -> None:
    """Waits for the work, and cancels it once the caller has gone away. The body of the request has been read.

    For work without an end of its own, `stopping` says when the server stops: it is then cut off, and the caller comes
    back. Raises CutOff.
    """
    delivery = asyncio.ensure_future(work)
    departure = asyncio.ensure_future(_wait_for_disconnect(receive))
    tasks = [delivery, departure, *([asyncio.ensure_future(_wait_for(stopping))] if stopping else [])]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if delivery.done():
            delivery.result()
        elif stopping is not None and stopping.is_set():
            raise CutOff
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _wait_for(event: asyncio.Event) -> None:
    await event.wait()


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
