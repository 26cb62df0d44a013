"""A channel whose calls carry metadata that is asked for at each call, e.g. a token that may be renewed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import grpc.aio

from dgx_music.wrapping_channel import WrappingChannel

Metadata = Sequence[tuple[str, str | bytes]]


class MetadataChannel(WrappingChannel):
    """Passes all calls to `channel`."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Callable[[], Metadata]) -> None:
        super().__init__(channel)
        self._metadata = metadata

    def _wrap(
        self, call: Callable[..., Any], method: str, request_streaming: bool, response_streaming: bool
    ) -> Callable[..., Any]:
        def call_with_metadata(*arguments: Any, metadata: Metadata | None = None, **options: Any) -> Any:
            return call(*arguments, metadata=(*self._metadata(), *(metadata or ())), **options)

        return call_with_metadata
