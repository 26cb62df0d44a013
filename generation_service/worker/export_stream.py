"""The client side of one streaming Export call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from dgx_music.address import EXPORT_ADDRESS_KEY
from dgx_music.audio.v1 import audio_pb2
from dgx_music.export.v1 import export_pb2, export_pb2_grpc
from service_runtime.rpc.client_stream import ClientStreamCall


class HasInitialMetadata(Protocol):
    """A running call."""

    async def initial_metadata(self) -> Iterable[tuple[str, str | bytes]]: ...


class ExportStream:
    """Sends the header, the chunks and the end. Each method raises AioRpcError with export's status.

    `on_address` is called with the address of the server once that receives, if it says where it is.
    """

    def __init__(
        self,
        stub: export_pb2_grpc.ExportServiceAsyncStub,
        timeout_seconds: float,
        on_address: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._call = ClientStreamCall(stub.Export, timeout_seconds)
        self._locating = asyncio.create_task(locate_server(self._call, on_address))

    async def send_header(self, header: export_pb2.ExportHeader) -> None:
        await self._call.write(export_pb2.ExportRequest(header=header))

    async def send_chunk(self, chunk: audio_pb2.AudioChunk) -> None:
        await self._call.write(export_pb2.ExportRequest(chunk=chunk))

    async def finish(self, end: audio_pb2.AudioEnd) -> export_pb2.ExportResponse:
        """Sends the end and returns the response, once the file is written."""
        await self._call.write(export_pb2.ExportRequest(end=end))
        return await self._call.finish()

    async def suspend(self, end: audio_pb2.AudioEnd) -> None:
        """Has the samples kept for another attempt; returns once they are."""
        await self._call.write(export_pb2.ExportRequest(suspend=end))
        await self._call.finish()

    def cancel(self) -> None:
        """Makes the export service discard what it received. Does nothing after the response."""
        self._locating.cancel()
        self._call.cancel()


async def locate_server(call: HasInitialMetadata, on_address: Callable[[str], object]) -> None:
    """Calls `on_address` with the address that the call's server tells in the initial metadata, if it does."""
    for key, value in await call.initial_metadata():
        if key == EXPORT_ADDRESS_KEY:
            on_address(str(value))
