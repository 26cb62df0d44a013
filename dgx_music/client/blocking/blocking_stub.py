"""The methods of the gateway's service as blocking functions."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

from dgx_music.client.blocking.loop_thread import LoopThread
from dgx_music.client.connection import Connection
from dgx_music.gateway.v1 import gateway_pb2

METHODS = gateway_pb2.DESCRIPTOR.services_by_name["MusicService"].methods_by_name


class BlockingStub:
    """Has a function for each method that takes one request: it returns the response, or an iterator of responses."""

    def __init__(self, thread: LoopThread, connection: Connection) -> None:
        self._thread, self._connection = thread, connection

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in METHODS or METHODS[name].client_streaming:
            raise AttributeError(f"MusicService has no method {name!r} that takes one request")

        def call(request: Any, timeout: float | None = None) -> Any:
            if METHODS[name].server_streaming:
                return self._thread.iterate(self._stream(name, request, timeout))
            return self._thread.run(self._call(name, request, timeout))

        return call

    def __dir__(self) -> list[str]:
        return [name for name, method in METHODS.items() if not method.client_streaming]

    # The stub belongs to the event loop, so it is first touched there.

    async def _call(self, name: str, request: Any, timeout: float | None) -> Any:
        return await self._connection.call(getattr(self._connection.music, name), request, timeout=timeout)

    async def _stream(self, name: str, request: Any, timeout: float | None) -> AsyncGenerator[Any, None]:
        deadline = None if timeout is None else time.monotonic() + timeout
        async for response in self._connection.stream(getattr(self._connection.music, name), request, deadline):
            yield response
