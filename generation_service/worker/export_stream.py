"""One Export call."""

from __future__ import annotations

from dgx_music.audio.v1 import audio_pb2
from dgx_music.export.v1 import export_pb2, export_pb2_grpc
from service_runtime.rpc.client_stream import ClientStreamCall


class Upload:
    """Sends header, chunks and end. Raises AioRpcError with the status that export gave."""

    def __init__(self, stub: export_pb2_grpc.ExportServiceAsyncStub, timeout_seconds: float) -> None:
        self._sending = ClientStreamCall(stub.Export, timeout_seconds)

    async def header(self, header: export_pb2.ExportHeader) -> None:
        await self._sending.write(export_pb2.ExportRequest(header=header))

    async def chunk(self, chunk: audio_pb2.AudioChunk) -> None:
        await self._sending.write(export_pb2.ExportRequest(chunk=chunk))

    async def finish(self, end: audio_pb2.AudioEnd) -> export_pb2.ExportResponse:
        """Sends the end and waits for the file."""
        await self._sending.write(export_pb2.ExportRequest(end=end))
        return await self._sending.finish()

    def cancel(self) -> None:
        """Has export drop what it got; nothing after the answer."""
        self._sending.cancel()
