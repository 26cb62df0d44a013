"""A grpc.aio server that accepts calls as fast as they come, even while its event loop is busy.

grpc.aio asks its core for one call of each method at a time, and needs six turns of the event loop before it asks for
the next one. With hundreds of listeners a turn takes milliseconds: new calls then wait in the core for seconds, where
nothing can refuse them. Here several calls of each method are asked for ahead, which leaves two turns for each.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any

import grpc.aio
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # It has no types.

CALLS_AHEAD = 8
"""Calls of each method that are asked for at a time."""


def build_server(interceptors: Sequence[Any], options: Sequence[tuple[str, Any]]) -> grpc.aio.Server:
    """Returns what `grpc.aio.server` returns. If this version of grpcio is built differently, it is the same."""
    original = cygrpc.AioServer
    if hasattr(original, "_make_request_call_future"):
        cygrpc.AioServer = _AcceptingServer  # grpc.aio has no parameter for it.
    try:
        return grpc.aio.server(interceptors=interceptors, options=options)
    finally:
        cygrpc.AioServer = original


class _AcceptingServer(cygrpc.AioServer):  # type: ignore[misc]
    """The key of a method is its path; None stands for all methods that have not been registered."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._requests: defaultdict[bytes | None, set[asyncio.Task[Any]]] = defaultdict(set)
        self._accepted: defaultdict[bytes | None, deque[Any]] = defaultdict(deque)
        self._next: dict[bytes | None, asyncio.Future[Any]] = {}

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Future[Any]:
        """Called by the serving loop. The future has the next call of the method."""
        loop = asyncio.get_running_loop()
        while len(self._requests[method]) < CALLS_AHEAD:
            request = self._request_call() if method is None else self._request_registered_call(method)
            task = loop.create_task(request)
            self._requests[method].add(task)
            task.add_done_callback(lambda task: self._on_accepted(method, task))
        future = loop.create_future()
        if self._accepted[method]:
            future.set_result(self._accepted[method].popleft())
        else:
            self._next[method] = future
        return future

    def _on_accepted(self, method: bytes | None, task: asyncio.Task[Any]) -> None:
        self._requests[method].discard(task)
        future = self._next.get(method)
        is_awaited = future is not None and not future.done()
        if task.cancelled():
            return
        if (error := task.exception()) is not None:  # The server shuts down, or the call is broken.
            if future is not None and is_awaited:
                future.set_exception(error)
        elif future is not None and is_awaited:
            future.set_result(task.result())
        else:
            self._accepted[method].append(task.result())

    async def shutdown(self, grace: float | None) -> None:
        """Ends, before the rest is drained, the calls that were accepted but never begun."""
        self._accepted.clear()
        await super().shutdown(grace)
