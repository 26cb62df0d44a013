"""The export service as a process, and on a read-only disk."""

from __future__ import annotations

import asyncio
import os
import subprocess

import grpc
import pytest

from dgx_music.export.v1 import export_pb2
from tests.support.export_client import (
    TIMEOUT_SECONDS,
    build_requests,
    music,
    new_id,
    raises_rpc_error,
    run_export_service,
)
from tests.support.export_servers import run_export_process


async def test_restart_after_kill_removes_incomplete_files(tmp_path):
    generation_id, samples = new_id(), music(3)
    finished = new_id()
    async with run_export_process(tmp_path) as (process, client):
        exported = await client.export(finished, music(1))
        upload, requests = client.upload(), build_requests(generation_id, samples)
        await upload.send(*requests[:3])
        await (await client.listen(generation_id, wait_seconds=5)).read_until(8_192)
        assert f"spool/{generation_id}.1.pcm.part" in client.files()
        process.kill()
        with pytest.raises(grpc.aio.AioRpcError):
            await upload.call
    # As after a crash while the file was being written.
    (tmp_path / "outputs/.landing" / f"{generation_id}.1.part").write_bytes(b"half a file")
    async with run_export_service(tmp_path) as client:
        assert client.files() == {exported.file_path, f"spool/{finished}.1.pcm"}
        response = await client.export(generation_id, samples, attempt=2)
        assert response.frames == len(samples)


async def test_sigterm_ends_process_with_status_0(tmp_path):
    async with run_export_process(tmp_path) as (process, _):
        process.terminate()
        assert await asyncio.wait_for(process.wait(), TIMEOUT_SECONDS) == 0


@pytest.fixture
def mounted_disk(tmp_path):
    """A mounted disk, and a function that makes it read-only."""

    def mount(options: str) -> int:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(tmp_path)]
        return subprocess.run(command, capture_output=True).returncode

    def make_read_only() -> None:
        assert mount("remount,ro,size=2m") == 0

    if os.geteuid() != 0 or mount("size=2m") != 0:
        pytest.skip("mounting a disk requires root")
    yield tmp_path, make_read_only
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


async def test_writing_to_read_only_disk_is_rejected(mounted_disk):
    data_dir, make_read_only = mounted_disk
    async with run_export_service(data_dir) as client:
        generation_id = new_id()
        existing = await client.export(generation_id, music(1))
        make_read_only()
        async with raises_rpc_error("UNAVAILABLE", "LIBRARY_UNAVAILABLE"):
            await client.send(build_requests(new_id(), music(1))[:1], close=False)
        for method, request in (
            (client.stub.Render, export_pb2.RenderRequest(generation_id=generation_id)),
            (client.stub.EditTags, export_pb2.EditTagsRequest(generation_id=generation_id, title="A")),
            (client.stub.DeleteFile, export_pb2.DeleteFileRequest(generation_id=generation_id)),
        ):
            async with raises_rpc_error("UNAVAILABLE", "LIBRARY_UNAVAILABLE"):
                await method(request, timeout=TIMEOUT_SECONDS)
        assert (client.data_dir / existing.file_path).exists()
