"""What ended an upload is told as export said it, whenever grpcio notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from dgx_music.audio.v1 import audio_pb2
from dgx_music.export.v1 import export_pb2, export_pb2_grpc
from generation_service.upload import Upload
from service_runtime.channel import connect
from service_runtime.errors import ResourceExhausted
from service_runtime.interceptors import CallInterceptor
from service_runtime.status import read_failure

CHUNK = audio_pb2.AudioChunk(pcm=bytes(60_000))


class FullDisk(export_pb2_grpc.ExportServiceServicer):
    """Ends each call at its third message, while more may be on their way."""

    async def Export(self, requests, context):
        messages = 0
        async for _ in requests:
            messages += 1
            if messages == 3:
                break
        raise ResourceExhausted("the disk is full", reason="DISK_FULL", retry_after_seconds=5.0)


@pytest.fixture
async def stub(tmp_path) -> AsyncIterator[export_pb2_grpc.ExportServiceAsyncStub]:
    server = grpc.aio.server(interceptors=[CallInterceptor()])
    export_pb2_grpc.add_ExportServiceServicer_to_server(FullDisk(), server)
    address = f"unix:{tmp_path}/export.sock"
    server.add_insecure_port(address)
    await server.start()
    async with connect(address) as channel:
        yield export_pb2_grpc.ExportServiceStub(channel)
    await server.stop(0)


async def send(upload: Upload, chunks: int, pause_seconds: float = 0) -> None:
    await upload.header(export_pb2.ExportHeader())
    for _ in range(chunks):
        await upload.chunk(CHUNK)
        await asyncio.sleep(pause_seconds)
    await upload.finish(audio_pb2.AudioEnd())


async def test_a_call_ended_early_keeps_its_status(stub):
    for attempt in range(60):
        upload = Upload(stub, 10.0)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await send(upload, 30, pause_seconds=0.001 if attempt % 3 == 0 else 0)
        failure = read_failure(ended.value)
        assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL")
        assert failure.message == "the disk is full"


async def test_a_refusal_after_the_end_keeps_its_status(stub):
    with pytest.raises(grpc.aio.AioRpcError, match="the disk is full") as ended:
        await send(Upload(stub, 10.0), 0)
    assert ended.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_nobody_there_is_unavailable(tmp_path):
    async with connect(f"unix:{tmp_path}/none") as channel:
        upload = Upload(export_pb2_grpc.ExportServiceStub(channel), 10.0)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await send(upload, 0)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
