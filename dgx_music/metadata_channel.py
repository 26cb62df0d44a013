"""A channel whose calls carry metadata that is asked for at each call, e.g. a token that may be renewed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import grpc
import grpc.aio

Metadata = Sequence[tuple[str, str | bytes]]


class MetadataChannel(grpc.aio.Channel):
    """Passes all calls to `channel`. An interceptor would do the same with an object and a task more for each call."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Callable[[], Metadata]) -> None:
        self._channel, self._metadata = channel, metadata

    def unary_unary(self, *arguments: Any, **options: Any) -> Any:
        return self._wrap(self._channel.unary_unary(*arguments, **options))

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        return self._wrap(self._channel.unary_stream(*arguments, **options))

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:
        return self._wrap(self._channel.stream_unary(*arguments, **options))

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        return self._wrap(self._channel.stream_stream(*arguments, **options))

    def _wrap(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, metadata: Metadata | None = None, **options: Any) -> Any:
            return method(*arguments, metadata=(*self._metadata(), *(metadata or ())), **options)

        return call

    async def __aenter__(self) -> MetadataChannel:
        await self._channel.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._channel.__aexit__(*error)

    async def close(self, grace: float | None = None) -> None:
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._channel.channel_ready()
