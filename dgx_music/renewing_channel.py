"""A channel whose certificates are renewed while it is in use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc.aio

from dgx_music.wrapping_channel import Call, WrappingChannel


class RenewingChannel(WrappingChannel):
    """Passes calls to a channel that it builds anew when `read_version` returns another value.

    gRPC reads a client's certificates only when a channel is created. Calls that run on the previous channel go on; the
    one before that is closed. If the new channel can't be built because a file is missing, the previous one is used.
    """

    def __init__(self, build: Callable[[], grpc.aio.Channel], read_version: Callable[[], object]) -> None:
        self._build, self._read_version = build, read_version
        self._version = read_version()
        super().__init__(build())
        self._previous: grpc.aio.Channel | None = None
        self._closing: asyncio.Task[None] | None = None

    def _wrap(
        self, bind: Callable[[grpc.aio.Channel], Call], method: str, request_streaming: bool, response_streaming: bool
    ) -> Call:
        channel, bound = self._channel, bind(self._channel)

        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal channel, bound
            if (current := self._renewed()) is not channel:
                channel, bound = current, bind(current)
            return bound(*arguments, **options)

        return call

    def _renewed(self) -> grpc.aio.Channel:
        version = self._read_version()
        if version != self._version:
            try:
                channel = self._build()
            except OSError:
                return self._channel
            if self._previous is not None:
                self._closing = asyncio.get_running_loop().create_task(self._previous.close())
            self._version, self._previous, self._channel = version, self._channel, channel
        return self._channel

    async def close(self, grace: float | None = None) -> None:
        if self._closing is not None:
            await self._closing
        if self._previous is not None:
            await self._previous.close(grace)
        await super().close(grace)
