"""Ends the work for a caller who has gone away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive


async def run_while_connected(work: Coroutine[Any, Any, None] | asyncio.Future[None], receive: Receive) -> None:
    """Waits for the work, and cancels it once the caller has gone away. The body of the request has been read."""
    delivery = asyncio.ensure_future(work)
    departure = asyncio.ensure_future(_wait_for_disconnect(receive))
    try:
        await asyncio.wait((delivery, departure), return_when=asyncio.FIRST_COMPLETED)
        if delivery.done():
            delivery.result()
    finally:
        for task in (departure, delivery):
            task.cancel()
        await asyncio.gather(departure, delivery, return_exceptions=True)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
