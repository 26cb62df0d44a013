"""A channel that does something at each call to another channel.

An interceptor would do the same with an object and a task more for each call.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio


class WrappingChannel(grpc.aio.Channel):
    """Passes all calls to `channel`, through what `_wrap` returns."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    @abstractmethod
    def _wrap(
        self, call: Callable[..., Any], method: str, request_streaming: bool, response_streaming: bool
    ) -> Callable[..., Any]:
        """Returns what starts a call to `method`, e.g. "/package.Service/Method", in place of `call`."""

    def unary_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._wrap(self._channel.unary_unary(method, *arguments, **options), method, False, False)

    def unary_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._wrap(self._channel.unary_stream(method, *arguments, **options), method, False, True)

    def stream_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._wrap(self._channel.stream_unary(method, *arguments, **options), method, True, False)

    def stream_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._wrap(self._channel.stream_stream(method, *arguments, **options), method, True, True)

    async def __aenter__(self) -> WrappingChannel:
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
