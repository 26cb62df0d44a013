"""Tests the end of a stream whose reader leaves as its deadline passes. What it costs: `tests/faults/test_52_…`."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import grpc
import grpc.aio
import pytest

from dgx_music.response_stream import read_stream


class EndingCall:
    """A call whose deadline passes while its reader is cancelled."""

    def __init__(self) -> None:
        self.reading = asyncio.Event()
        self._end = asyncio.Event()

    async def read(self) -> Any:
        self.reading.set()
        await self._end.wait()
        metadata = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(grpc.StatusCode.DEADLINE_EXCEEDED, metadata, metadata)

    def cancel(self) -> bool:
        self._end.set()
        return True


async def test_error_of_a_read_that_nobody_waits_for_is_not_logged() -> None:
    logged: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: logged.append(context))
    call: Any = EndingCall()
    reader = asyncio.ensure_future(anext(read_stream(call)))
    await call.reading.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await asyncio.sleep(0)
    gc.collect()
    assert logged == []
