"""A grpc.aio server that accepts calls as fast as they come, even while its event loop is busy.

grpc.aio asks its core for one call of each method at a time, and needs six turns of the event loop before it asks for
the next one. With hundreds of listeners a turn takes milliseconds: new calls then wait in the core for seconds, where
nothing can refuse them. Here several calls of each method are asked for ahead, once it has been called.

grpcio has no setting for it. This uses two methods of a class of grpcio that is not public, and so applies to the
versions only that it was tried with; with others, servers accept calls more slowly under load, and are else the same.
A test fails when another version is installed.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # It has no types.

TRIED_VERSIONS = ("1.85",)
"""Of grpcio, major and minor."""
CALLS_AHEAD = 32
"""Calls of a method that are asked for at a time, at most; at first there is one, so that methods which nobody calls
cost nothing."""


def build_server(interceptors: Sequence[Any], options: Sequence[tuple[str, Any]]) -> grpc.aio.Server:
    """Returns what `grpc.aio.server` returns."""
    original = cygrpc.AioServer
    if can_ask_ahead():
        cygrpc.AioServer = _AcceptingServer  # grpc.aio has no parameter for it.
    try:
        return grpc.aio.server(interceptors=interceptors, options=options)
    finally:
        cygrpc.AioServer = original


def can_ask_ahead() -> bool:
    """Whether this was tried with the installed version of grpcio."""
    return grpc.__version__.rpartition(".")[0] in TRIED_VERSIONS


class _AcceptingServer(cygrpc.AioServer):  # type: ignore[misc]
    """The key of a method is its path; None stands for all methods that have not been registered."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._requests: defaultdict[bytes | None, set[asyncio.Task[Any]]] = defaultdict(set)
        self._accepted: defaultdict[bytes | None, deque[Any]] = defaultdict(deque)
        self._count: Counter[bytes | None] = Counter()
        """Calls so far."""
        self._next: dict[bytes | None, asyncio.Future[Any]] = {}

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Future[Any]:
        """Called by the serving loop. The future has the next call of the method."""
        loop = asyncio.get_running_loop()
        self._count[method] += 1
        while len(self._requests[method]) < min(CALLS_AHEAD, self._count[method]):
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
