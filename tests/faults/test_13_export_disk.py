"""Fault 13: the disk is full or fails at each step of committing a file. The caller gets the reason, no file is left
behind except the samples, and exports succeed again once there is space."""

from __future__ import annotations

import resource
from pathlib import Path

import grpc.aio
import pytest

from dgx_music.audio.v1 import audio_pb2
from dgx_music.audio.v1.audio_pb2 import OutputOptions
from dgx_music.error_status import ErrorDetails, read_error_details
from dgx_music.export.v1 import export_pb2
from service_runtime.rpc.client_stream import ClientStreamCall
from tests.support.export_client import (
    RATE_HZ,
    TIMEOUT_SECONDS,
    ExportClient,
    build_requests,
    kept_spool,
    music,
    new_id,
)
from tests.support.export_servers import run_export_process

EXPECTED_ERRORS = {
    "ENOSPC": (grpc.StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL"),
    "EDQUOT": (grpc.StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL"),
    "EIO": (grpc.StatusCode.UNAVAILABLE, "LIBRARY_UNAVAILABLE"),
}
FLAC = OutputOptions(format=audio_pb2.FILE_FORMAT_FLAC_24)
FLOAT = OutputOptions(format=audio_pb2.FILE_FORMAT_WAV_FLOAT)


async def export(
    client: ExportClient, generation_id: str, seconds: float, output: OutputOptions | None = None
) -> export_pb2.ExportResponse:
    call = ClientStreamCall(client.stub.Export, TIMEOUT_SECONDS)
    for part in build_requests(generation_id, music(seconds), output=output):
        await call.write(part)
    return await call.finish()


async def fail_to_export(
    client: ExportClient, generation_id: str, seconds: float = 1.0, output: OutputOptions | None = None
) -> ErrorDetails:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await export(client, generation_id, seconds, output)
    return read_error_details(raised.value)


@pytest.mark.parametrize(
    ("point", "error"), [("before_fsync", "EIO"), ("after_fsync", "ENOSPC"), ("before_rename", "EDQUOT")]
)
async def test_disk_error_during_commit_leaves_no_files(tmp_path: Path, point: str, error: str) -> None:
    generation_id = new_id()
    async with run_export_process(tmp_path, DGX_MUSIC_FAILPOINT=f"export.{point}:{error}@2") as (_, client):
        kept = await export(client, generation_id, 1.0)
        for other in (generation_id, new_id()):
            before = {name for name in client.files() if name.startswith("outputs/")}
            failure = await fail_to_export(client, other)
            assert (failure.code, failure.reason) == EXPECTED_ERRORS[error]
            assert failure.retry_after_seconds is not None
            assert client.library_files() == before == {kept.file_path}
            assert kept_spool(other) <= client.spools()
        request = export_pb2.DownloadRequest(generation_id=generation_id)
        received = [len(part.data) async for part in client.stub.Download(request, timeout=TIMEOUT_SECONDS)]
        assert sum(received) == kept.file_size_bytes


async def test_disk_error_during_render_commit_leaves_no_files(tmp_path: Path) -> None:
    generation_id = new_id()
    async with run_export_process(tmp_path, DGX_MUSIC_FAILPOINT="export.before_render_rename:ENOSPC") as (_, client):
        await export(client, generation_id, 1.0)
        before = client.files()
        request = export_pb2.RenderRequest(generation_id=generation_id, output=FLAC)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await client.stub.Render(request, timeout=TIMEOUT_SECONDS)
        assert read_error_details(raised.value).reason == "DISK_FULL"
        assert client.files() == before


async def test_file_size_limit_fails_export_until_it_is_lifted(tmp_path: Path) -> None:
    """The limit (RLIMIT_FSIZE) is first too small for the spool, then for the file only."""
    async with run_export_process(tmp_path) as (process, client):
        await export(client, new_id(), 0.5)
        before, spools = client.library_files(), client.spools()
        soft, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        generation_id = new_id()
        # One second takes 256 kB in the spool, and a little more in a file of floats.
        for limit in (50_000, 512_000):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, hard))
            failure = await fail_to_export(client, generation_id, 2.0, FLOAT)
            assert (failure.code, failure.reason) == EXPECTED_ERRORS["ENOSPC"]
            assert client.library_files() == before
            assert client.spools() - spools == (kept_spool(generation_id) if limit == 512_000 else set())
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (soft, hard))
        resumed = (await client.resume(generation_id, 2)).file
        assert client.library_files() == before | {resumed.file_path}
        assert client.spools() == spools | {f"{generation_id}.1.pcm"}
        assert resumed.frames == 2 * RATE_HZ


async def test_full_disk_accepts_files_again_after_deletions(small_disk: Path) -> None:
    async with run_export_process(small_disk, DGX_MUSIC_SPOOL_KEEP_SECONDS="0") as (_, client):
        exported: list[str] = []
        failure = None
        while failure is None:
            generation_id = new_id()
            try:
                await export(client, generation_id, 3.0)
                exported.append(generation_id)
            except grpc.aio.AioRpcError as error:
                failure = read_error_details(error)
        assert (failure.code, failure.reason) == EXPECTED_ERRORS["ENOSPC"]
        assert exported
        assert not [name for name in client.library_files() if name.endswith(".part") or generation_id in name]
        assert client.spools() in (set(), kept_spool(generation_id))
        for other in exported:
            await client.stub.DeleteFile(export_pb2.DeleteFileRequest(generation_id=other), timeout=TIMEOUT_SECONDS)
        await export(client, generation_id, 3.0)
