"""Reads the responses of a call that streams them, and ends calls with their event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, TypeVar, cast

import grpc.aio

Response = TypeVar("Response")

_STATUS_TASK = "_AioCall._handle_status_once_received"
_STATUS_SECONDS = 2.0


async def finish_calls() -> None:
    """Waits until gRPC has the status of each call on this event loop, which is closed next; all are over or cancelled.

    A status that comes later goes to any other event loop of the process, which logs that the first one is closed.
    """
    if tasks := [task for task in asyncio.all_tasks() if is_status_task(task)]:
        await asyncio.wait(tasks, timeout=_STATUS_SECONDS)


def is_status_task(task: asyncio.Task[Any]) -> bool:
    """Returns whether gRPC waits in this task for the status of a call."""
    return getattr(task.get_coro(), "__qualname__", "") == _STATUS_TASK


async def read_stream(call: grpc.aio.UnaryStreamCall[Any, Response]) -> AsyncGenerator[Response, None]:
    """Yields the responses as `async for response in call` does, and cancels the call if this task is cancelled.

    gRPC never frees a response that arrives for a read whose task was cancelled: up to 64 KiB for each listener who
    leaves. So the read goes on in a task of its own, and the cancelled call ends it.
    """
    while True:
        read = asyncio.ensure_future(call.read())
        try:
            response = await asyncio.shield(read)
        except asyncio.CancelledError:
            call.cancel()
            read.add_done_callback(_ignore_error)
            if not read.done():
                await asyncio.wait([read])
            raise
        if response is grpc.aio.EOF:
            return
        yield cast(Response, response)


def _ignore_error(read: asyncio.Task[Any]) -> None:
    """Keeps asyncio from logging the error of a read that nobody waits for: a deadline may end it with its reader."""
    if not read.cancelled():
        read.exception()
