"""The client side of one streaming Export call."""

from __future__ import annotations

from dgx_music.audio.v1 import audio_pb2
from dgx_music.export.v1 import export_pb2, export_pb2_grpc
from service_runtime.rpc.client_stream import ClientStreamCall


class ExportStream:
    """Sends the header, the chunks and the end. Each method raises AioRpcError with export's status."""

    def __init__(self, stub: export_pb2_grpc.ExportServiceAsyncStub, timeout_seconds: float) -> None:
        self._call = ClientStreamCall(stub.Export, timeout_seconds)

    async def send_header(self, header: export_pb2.ExportHeader) -> None:
        await self._call.write(export_pb2.ExportRequest(header=header))

    async def send_chunk(self, chunk: audio_pb2.AudioChunk) -> None:
        await self._call.write(export_pb2.ExportRequest(chunk=chunk))

    async def finish(self, end: audio_pb2.AudioEnd) -> export_pb2.ExportResponse:
        """Sends the end and returns the response, once the file is written."""
        await self._call.write(export_pb2.ExportRequest(end=end))
        return await self._call.finish()

    def cancel(self) -> None:
        """Makes the export service discard what it received. Does nothing after the response."""
        self._call.cancel()
