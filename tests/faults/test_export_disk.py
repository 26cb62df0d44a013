"""Fault 13: the disk has no room, or fails, at each step of a landing. There is no file, the caller hears why, nothing
is left, and it goes on by itself when there is room."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc.aio
import pytest

from dgx_music.audio.v1 import audio_pb2
from dgx_music.audio.v1.audio_pb2 import OutputOptions
from dgx_music.export.v1 import export_pb2
from dgx_music.status import ErrorDetails, read_error_details
from service_runtime.rpc.client_stream import ClientStreamCall
from tests.support.export_client import TIMEOUT, Client, music, new_id, parts
from tests.support.export_servers import export_server

DISK_BYTES = 4 << 20
REFUSALS = {
    "ENOSPC": (grpc.StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL"),
    "EDQUOT": (grpc.StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL"),
    "EIO": (grpc.StatusCode.UNAVAILABLE, "LIBRARY_UNAVAILABLE"),
}
FLAC = OutputOptions(format=audio_pb2.FILE_FORMAT_FLAC_24)


async def export(client: Client, generation_id: str, seconds: float) -> export_pb2.ExportResponse:
    sending = ClientStreamCall(client.stub.Export, TIMEOUT)
    for part in parts(generation_id, music(seconds)):
        await sending.write(part)
    return await sending.finish()


async def refusal_of(client: Client, generation_id: str, seconds: float = 1.0) -> ErrorDetails:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await export(client, generation_id, seconds)
    return read_error_details(raised.value)


@pytest.mark.parametrize(
    ("point", "refusal"), [("before_fsync", "EIO"), ("after_fsync", "ENOSPC"), ("before_rename", "EDQUOT")]
)
async def test_a_disk_that_refuses_while_a_file_lands(tmp_path: Path, point: str, refusal: str) -> None:
    generation_id = new_id()
    async with export_server(tmp_path, DGX_MUSIC_FAILPOINT=f"export.{point}:{refusal}@2") as (_, client):
        kept = await export(client, generation_id, 1.0)
        for other in (generation_id, new_id()):
            before = {name for name in client.files() if name.startswith("outputs/")}
            failure = await refusal_of(client, other)
            assert (failure.code, failure.reason) == REFUSALS[refusal]
            assert failure.retry_after_seconds is not None
            assert client.files() == before == {kept.file_path}
        request = export_pb2.DownloadRequest(generation_id=generation_id)
        received = [len(part.data) async for part in client.stub.Download(request, timeout=TIMEOUT)]
        assert sum(received) == kept.file_size_bytes


async def test_a_disk_that_refuses_while_a_render_lands(tmp_path: Path) -> None:
    generation_id = new_id()
    async with export_server(tmp_path, DGX_MUSIC_FAILPOINT="export.before_render_rename:ENOSPC") as (_, client):
        await export(client, generation_id, 1.0)
        before = client.files()
        request = export_pb2.RenderRequest(generation_id=generation_id, output=FLAC)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await client.stub.Render(request, timeout=TIMEOUT)
        assert read_error_details(raised.value).reason == "DISK_FULL"
        assert client.files() == before


async def test_a_file_that_grows_too_large_and_then_may(tmp_path: Path) -> None:
    """No file of the server may grow beyond a limit, first that of the spool, then that of the file."""
    async with export_server(tmp_path) as (process, client):
        await export(client, new_id(), 0.5)
        before = client.files()
        soft, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        generation_id = new_id()
        # Float as received has 256 kB a second, PCM_24 192 kB.
        for limit in (50_000, 200_000):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, hard))
            failure = await refusal_of(client, generation_id, 2.0)
            assert (failure.code, failure.reason) == REFUSALS["ENOSPC"]
            assert client.files() == before
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (soft, hard))
        landed = await export(client, generation_id, 2.0)
        assert client.files() == before | {landed.file_path, f"spool/{generation_id}.1.pcm"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a disk takes root")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


async def test_a_full_disk_takes_files_again_when_others_are_deleted(small_disk: Path) -> None:
    async with export_server(small_disk, DGX_MUSIC_SPOOL_KEEP_SECONDS="0") as (_, client):
        landed: list[str] = []
        failure = None
        while failure is None:
            generation_id = new_id()
            try:
                await export(client, generation_id, 3.0)
                landed.append(generation_id)
            except grpc.aio.AioRpcError as error:
                failure = read_error_details(error)
        assert (failure.code, failure.reason) == REFUSALS["ENOSPC"]
        assert landed
        assert not [name for name in client.files() if name.endswith(".part") or generation_id in name]
        for other in landed:
            await client.stub.DeleteFile(export_pb2.DeleteFileRequest(generation_id=other), timeout=TIMEOUT)
        await export(client, generation_id, 3.0)
