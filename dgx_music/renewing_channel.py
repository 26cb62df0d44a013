"""A channel whose certificates are renewed while it is in use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio


class RenewingChannel(grpc.aio.Channel):
    """Passes calls to a channel that it builds anew when `read_version` returns another value.

    gRPC reads a client's certificates only when a channel is created. Calls that run on the previous channel go on; the
    one before that is closed. If the new channel can't be built because a file is missing, the previous one is used.
    """

    def __init__(self, build: Callable[[], grpc.aio.Channel], read_version: Callable[[], object]) -> None:
        self._build, self._read_version = build, read_version
        self._version = read_version()
        self._channel = build()
        self._previous: grpc.aio.Channel | None = None
        self._closing: asyncio.Task[None] | None = None

    def unary_unary(self, *arguments: Any, **options: Any) -> Any:
        return self._follow(lambda channel: channel.unary_unary(*arguments, **options))

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        return self._follow(lambda channel: channel.unary_stream(*arguments, **options))

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:
        return self._follow(lambda channel: channel.stream_unary(*arguments, **options))

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        return self._follow(lambda channel: channel.stream_stream(*arguments, **options))

    def _follow(self, build_method: Callable[[grpc.aio.Channel], Any]) -> Callable[..., Any]:
        channel, method = self._channel, build_method(self._channel)

        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal channel, method
            if (current := self._renewed()) is not channel:
                channel, method = current, build_method(current)
            return method(*arguments, **options)

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

    async def __aenter__(self) -> RenewingChannel:
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        if self._closing is not None:
            await self._closing
        if self._previous is not None:
            await self._previous.close(grace)
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._channel.channel_ready()
