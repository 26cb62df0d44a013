"""What ended an upload is told as export said it, whenever grpcio notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from dgx_music.audio.v1 import audio_pb2
from dgx_music.channel import connect
from dgx_music.errors import ResourceExhausted
from dgx_music.export.v1 import export_pb2, export_pb2_grpc
from dgx_music.status import read_error_details
from generation_service.worker.export_stream import Upload
from service_runtime.rpc.interceptors import CallInterceptor

CHUNK = audio_pb2.AudioChunk(pcm=bytes(60_000))


class FullDisk(export_pb2_grpc.ExportServiceServicer):
    """Ends each call at its third message, while more may be on their way."""

    def __init__(self) -> None:
        self.has_refused = asyncio.Event()

    async def Export(self, requests, context):
        messages = 0
        async for _ in requests:
            messages += 1
            if messages == 3:
                break
        self.has_refused.set()
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


async def send(upload: Upload, chunks: int, pause: asyncio.Event | None = None) -> None:
    """Pauses at the third message until the event, where there is one to wait for."""
    await upload.header(export_pb2.ExportHeader())
    for number in range(1, chunks + 1):
        await upload.chunk(CHUNK)
        if pause is not None and number == 2:
            await pause.wait()
        await asyncio.sleep(0)
    await upload.finish(audio_pb2.AudioEnd())


async def test_a_call_ended_early_keeps_its_status(stub, disk):
    for attempt in range(60):
        disk.has_refused.clear()
        upload = Upload(stub, 60.0)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await send(upload, 30, disk.has_refused if attempt % 3 == 0 else None)
        failure = read_error_details(ended.value)
        assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL")
        assert failure.message == "the disk is full"


async def test_a_refusal_after_the_end_keeps_its_status(stub):
    with pytest.raises(grpc.aio.AioRpcError, match="the disk is full") as ended:
        await send(Upload(stub, 60.0), 0)
    assert ended.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_nobody_there_is_unavailable(tmp_path):
    async with connect(f"unix:{tmp_path}/none") as channel:
        upload = Upload(export_pb2_grpc.ExportServiceStub(channel), 60.0)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await send(upload, 0)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
