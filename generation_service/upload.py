"""One Export call, and what really ended it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import grpc
import grpc.aio

from dgx_music.audio.v1 import audio_pb2
from dgx_music.export.v1 import export_pb2, export_pb2_grpc

GRPCIO_MASK = "Internal error from Core"
STATUS_SECONDS = 0.05
"""How long after a failed write the server's status may still come in."""


class Upload:
    """Sends header, chunks and end. Raises AioRpcError with the status that export gave.

    When a server ends a call while the client writes, grpcio puts "INTERNAL: Internal error from Core" over the status
    that came, or that comes a moment later (grpc/grpc#36066, open as of 1.85). So the status is noted when it comes.
    """

    def __init__(self, stub: export_pb2_grpc.ExportServiceAsyncStub, timeout_seconds: float) -> None:
        self._call = stub.Export(timeout=timeout_seconds)
        self._status: grpc.aio.AioRpcError | None = None
        self._call.add_done_callback(lambda _: self._note())

    async def header(self, header: export_pb2.ExportHeader) -> None:
        await self._write(export_pb2.ExportRequest(header=header))

    async def chunk(self, chunk: audio_pb2.AudioChunk) -> None:
        await self._write(export_pb2.ExportRequest(chunk=chunk))

    async def finish(self, end: audio_pb2.AudioEnd) -> export_pb2.ExportResponse:
        """Sends the end and waits for the file."""
        await self._write(export_pb2.ExportRequest(end=end))
        try:
            await self._call.done_writing()
            return await self._call
        except grpc.aio.AioRpcError:
            raise await self._what_ended_it() from None

    def cancel(self) -> None:
        """Has export drop what it got; nothing after the answer."""
        self._call.cancel()

    async def _write(self, request: export_pb2.ExportRequest) -> None:
        try:
            await self._call.write(request)
        except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
            raise await self._what_ended_it() from None

    async def _what_ended_it(self) -> grpc.aio.AioRpcError:
        if self._status is None:
            await asyncio.sleep(STATUS_SECONDS)
            self._note()
        return self._status or _failure(grpc.StatusCode.UNAVAILABLE, "export ended the call without a status")

    def _note(self) -> None:
        details = _now(self._call.details())
        if self._status is None and details != GRPCIO_MASK:
            self._status = _failure(_now(self._call.code()), details, _now(self._call.trailing_metadata()))


def _now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that has nothing to wait for: a call that has ended knows its status."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the call has not ended")


def _failure(code: grpc.StatusCode, details: str, trailing_metadata: Any = None) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing_metadata or grpc.aio.Metadata(), details)
