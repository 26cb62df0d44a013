"""The export service as a process, and the disk that it writes to."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess

import grpc
import pytest

from dgx_music.audio.v1 import audio_pb2
from tests.support.export_client import TIMEOUT, music, new_id, parts, refused, serving
from tests.support.export_servers import export_server


async def test_no_room_on_the_disk(client):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    generation_id, samples = new_id(), music(10)
    good = parts(generation_id, samples, output=audio_pb2.OutputOptions(format=audio_pb2.FILE_FORMAT_WAV_FLOAT))
    # Room for less than the spool; then for the spool, but not for the file, which has a header besides.
    for limit, sent, close in [(100_000, good[:3], False), (samples.nbytes, good, True)]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            async with refused("RESOURCE_EXHAUSTED", "DISK_FULL"):
                await client.send(sent, close)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert client.files() == set()
    await client.send(good)


async def test_killed_in_the_middle_and_swept_at_the_next_start(tmp_path):
    generation_id, samples = new_id(), music(3)
    finished = new_id()
    async with export_server(tmp_path) as (process, client):
        landed = await client.export(finished, music(1))
        upload, good = client.upload(), parts(generation_id, samples)
        await upload.send(*good[:3])
        await (await client.listen(generation_id, wait_seconds=5)).until(8_192)
        assert f"spool/{generation_id}.1.pcm.part" in client.files()
        process.kill()
        with pytest.raises(grpc.aio.AioRpcError):
            await upload.call
    # What a crash in the middle of writing the file would leave.
    (tmp_path / "outputs/.landing" / f"{generation_id}.1.part").write_bytes(b"half a file")
    async with serving(tmp_path) as client:
        assert client.files() == {landed.file_path, f"spool/{finished}.1.pcm"}
        response = await client.export(generation_id, samples, attempt=2)
        assert response.frames == len(samples)


async def test_sigterm_ends_the_process_in_order(tmp_path):
    async with export_server(tmp_path) as (process, _):
        process.terminate()
        assert await asyncio.wait_for(process.wait(), TIMEOUT) == 0


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MB, and a function that makes it read-only."""

    def mount(options: str) -> int:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(tmp_path)]
        return subprocess.run(command, capture_output=True).returncode

    def make_read_only() -> None:
        assert mount("remount,ro,size=2m") == 0

    if os.geteuid() != 0 or mount("size=2m") != 0:
        pytest.skip("mounting a disk takes root")
    yield tmp_path, make_read_only
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


async def test_a_disk_that_is_full_and_one_that_is_read_only(small_disk):
    data_dir, make_read_only = small_disk
    async with serving(data_dir) as client:
        kept, big = await client.export(new_id(), music(1)), parts(new_id(), music(20))
        # The first leaves room for 25 chunks and a bit: the 26th is refused.
        async with refused("RESOURCE_EXHAUSTED", "DISK_FULL"):
            await client.send(big[:27], close=False)
        assert len(client.files()) == 2
        make_read_only()
        async with refused("UNAVAILABLE", "LIBRARY_UNAVAILABLE"):
            await client.send(parts(new_id(), music(1))[:1], close=False)
        assert (client.data_dir / kept.file_path).exists()
