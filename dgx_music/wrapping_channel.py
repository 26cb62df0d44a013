"""Channels that do something at each call to another channel.

An interceptor would do the same with an object and a task more for each call.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import grpc
import grpc.aio

Call = Callable[..., Any]
"""Starts a call of one method."""
Metadata = Sequence[tuple[str, str | bytes]]


class WrappingChannel(grpc.aio.Channel):
    """Passes all calls to `channel`, in the way that `_wrap` decides."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    @abstractmethod
    def _wrap(
        self, bind: Callable[[grpc.aio.Channel], Call], method: str, request_streaming: bool, response_streaming: bool
    ) -> Call:
        """Returns what starts a call of `method`, e.g. "/package.Service/Method". `bind` gives that of a channel."""

    def unary_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._wrap(lambda channel: channel.unary_unary(method, *arguments, **options), method, False, False)

    def unary_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._wrap(lambda channel: channel.unary_stream(method, *arguments, **options), method, False, True)

    def stream_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._wrap(lambda channel: channel.stream_unary(method, *arguments, **options), method, True, False)

    def stream_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._wrap(lambda channel: channel.stream_stream(method, *arguments, **options), method, True, True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._channel.channel_ready()


class MetadataChannel(WrappingChannel):
    """Calls carry metadata that is asked for at each call, e.g. a token that may be renewed."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Callable[[], Metadata]) -> None:
        super().__init__(channel)
        self._metadata = metadata

    def _wrap(
        self, bind: Callable[[grpc.aio.Channel], Call], method: str, request_streaming: bool, response_streaming: bool
    ) -> Call:
        call = bind(self._channel)

        def call_with_metadata(*arguments: Any, metadata: Metadata | None = None, **options: Any) -> Any:
            return call(*arguments, metadata=(*self._metadata(), *(metadata or ())), **options)

        return call_with_metadata
