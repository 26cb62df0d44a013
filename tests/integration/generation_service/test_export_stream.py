"""An export stream that the server ends early raises the server's status, whenever grpcio notices it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from dgx_music.audio.v1 import audio_pb2
from dgx_music.channel import connect
from dgx_music.error_status import read_error_details
from dgx_music.errors import ResourceExhausted
from dgx_music.export.v1 import export_pb2, export_pb2_grpc
from generation_service.worker.export_stream import ExportStream
from service_runtime.rpc.call_interceptor import CallInterceptor

CHUNK = audio_pb2.AudioChunk(pcm=bytes(60_000))


class FullDisk(export_pb2_grpc.ExportServiceServicer):
    """Rejects each call at its third message, while more messages may be in flight."""

    def __init__(self) -> None:
        self.has_rejected = asyncio.Event()

    async def Export(self, requests, context):
        messages = 0
        async for _ in requests:
            messages += 1
            if messages == 3:
                break
        self.has_rejected.set()
        raise ResourceExhausted("the disk is full", reason="DISK_FULL", retry_after_seconds=5.0)


@pytest.fixture
def disk() -> FullDisk:
    return FullDisk()


@pytest.fixture
async def stub(tmp_path, disk) -> AsyncIterator[export_pb2_grpc.ExportServiceAsyncStub]:
    server = grpc.aio.server(interceptors=[CallInterceptor()])
    export_pb2_grpc.add_ExportServiceServicer_to_server(disk, server)
    address = f"unix:{tmp_path}/export.sock"
    server.add_insecure_port(address)
    await server.start()
    try:
        async with connect(address) as channel:
            yield export_pb2_grpc.ExportServiceStub(channel)
    finally:
        await server.stop(0)


async def send(stream: ExportStream, chunks: int, pause: asyncio.Event | None = None) -> None:
    """Sends a whole stream. If `pause` is given, waits for it before the third chunk."""
    await stream.send_header(export_pb2.ExportHeader())
    for number in range(1, chunks + 1):
        await stream.send_chunk(CHUNK)
        if pause is not None and number == 2:
            await pause.wait()
        await asyncio.sleep(0)
    await stream.finish(audio_pb2.AudioEnd())


async def test_status_of_a_call_ended_early_is_kept(stub, disk):
    for attempt in range(30):
        disk.has_rejected.clear()
        stream = ExportStream(stub, 60.0)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await send(stream, 30, disk.has_rejected if attempt % 3 == 0 else None)
        failure = read_error_details(caught.value)
        assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL")
        assert failure.message == "the disk is full"


async def test_status_after_the_last_message_is_kept(stub):
    with pytest.raises(grpc.aio.AioRpcError, match="the disk is full") as caught:
        await send(ExportStream(stub, 60.0), 0)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_missing_server_is_unavailable(tmp_path):
    async with connect(f"unix:{tmp_path}/none") as channel:
        stream = ExportStream(export_pb2_grpc.ExportServiceStub(channel), 60.0)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await send(stream, 0)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
