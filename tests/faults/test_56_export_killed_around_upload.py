"""Fault 56: the export service is killed before, in the middle of or after the upload of a file, a render or an edited
file. The bucket then has the old object or the complete new one, and another server goes on."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest

from dgx_music.export.v1 import export_pb2
from export_service.objects.bucket import PART_BYTES, SINGLE_UPLOAD_BYTES
from tests.support.cut_connection import forwarding_to
from tests.support.export_client import TIMEOUT_SECONDS, ExportClient, kept_spool, music, new_id, output_options
from tests.support.export_servers import run_export_process
from tests.support.object_storage import library_keys, read_hash
from tests.support.s3_server import OWNER, S3Server

pytestmark = pytest.mark.slow

SAMPLES = music(0.5)


async def expect_kill_during(call: Awaitable[Any], process: asyncio.subprocess.Process) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert await asyncio.wait_for(process.wait(), TIMEOUT_SECONDS) == -signal.SIGKILL


async def render(client: ExportClient, generation_id: str) -> export_pb2.RenderResponse:
    request = export_pb2.RenderRequest(generation_id=generation_id, output=output_options("FLAC_24"))
    return await client.stub.Render(request, timeout=TIMEOUT_SECONDS)


async def edit(client: ExportClient, generation_id: str) -> export_pb2.EditTagsResponse:
    request = export_pb2.EditTagsRequest(generation_id=generation_id, title="New")
    return await client.stub.EditTags(request, timeout=TIMEOUT_SECONDS)


@pytest.mark.parametrize("point", ["before_upload", "after_upload"])
async def test_kill_around_the_upload_of_a_file(s3: S3Server, bucket: str, tmp_path: Path, point: str) -> None:
    store, generation_id, settings = s3.store(bucket), new_id(), s3.settings(bucket)
    armed = {**settings, "DGX_MUSIC_FAILPOINT": f"export.{point}:kill"}
    async with run_export_process(tmp_path, **armed) as (process, client):
        await expect_kill_during(client.export(generation_id, SAMPLES), process)
    assert library_keys(store) == (set() if point == "before_upload" else {f"outputs/{generation_id}/1.wav"})
    with (tmp_path / "log").open("wb") as log:
        async with run_export_process(tmp_path, log=log, **settings, DGX_MUSIC_LOG_LEVEL="debug") as (_, client):
            assert not {path for path in client.files() if ".landing/" in path}
            if point == "before_upload":
                assert client.spools() == kept_spool(generation_id)
                exported = (await client.resume(generation_id, 2)).file
            else:
                exported = await client.export(generation_id, SAMPLES, attempt=2)
            assert library_keys(store) == {exported.file_path}
            assert read_hash(store, exported.file_path) == exported.file_sha256
    log_text = (tmp_path / "log").read_text()
    assert log_text
    assert OWNER.secret_access_key not in log_text


async def test_kill_in_the_middle_of_an_upload_in_parts(s3: S3Server, bucket: str, tmp_path: Path) -> None:
    samples = np.tile(music(1), (200, 1))
    assert samples.size * 3 > SINGLE_UPLOAD_BYTES
    store, generation_id = s3.store(bucket), new_id()
    async with forwarding_to(s3.address) as forwarder:
        settings = s3.settings(bucket, address=forwarder.address)
        async with run_export_process(tmp_path, **settings) as (process, client):
            forwarder.bytes_per_second = PART_BYTES / 2  # Of each part.
            some_sent = asyncio.ensure_future(forwarder.wait_until_sent(PART_BYTES))
            some_sent.add_done_callback(lambda sent: process.kill())
            await expect_kill_during(client.export(generation_id, samples), process)
            assert some_sent.done()
        assert library_keys(store) == set()
        forwarder.restore()
        async with run_export_process(tmp_path, **settings) as (_, client):
            assert client.spools() == kept_spool(generation_id)
            resumed = (await client.resume(generation_id, 2)).file
    assert library_keys(store) == {resumed.file_path}
    assert resumed.file_size_bytes > SINGLE_UPLOAD_BYTES
    assert read_hash(store, resumed.file_path) == resumed.file_sha256


@pytest.mark.parametrize("point", ["before_render_upload", "after_render_upload"])
async def test_kill_around_the_upload_of_a_render(s3: S3Server, bucket: str, tmp_path: Path, point: str) -> None:
    store, generation_id, settings = s3.store(bucket), new_id(), s3.settings(bucket)
    armed = {**settings, "DGX_MUSIC_FAILPOINT": f"export.{point}:kill"}
    async with run_export_process(tmp_path / "a", **armed) as (process, client):
        exported = await client.export(generation_id, SAMPLES)
        await expect_kill_during(render(client, generation_id), process)
    async with run_export_process(tmp_path / "b", **settings) as (_, client):
        rendered = await render(client, generation_id)
    assert library_keys(store) == {exported.file_path, rendered.file.file_path}
    assert read_hash(store, rendered.file.file_path) == rendered.file.file_sha256


@pytest.mark.parametrize("point", ["before_edit_upload", "after_edit_upload"])
async def test_kill_around_the_upload_of_an_edited_file(s3: S3Server, bucket: str, tmp_path: Path, point: str) -> None:
    store, generation_id, settings = s3.store(bucket), new_id(), s3.settings(bucket)
    armed = {**settings, "DGX_MUSIC_FAILPOINT": f"export.{point}:kill"}
    async with run_export_process(tmp_path / "a", **armed) as (process, client):
        exported = await client.export(generation_id, SAMPLES)
        await expect_kill_during(edit(client, generation_id), process)
    assert library_keys(store) == {exported.file_path}
    is_old = read_hash(store, exported.file_path) == exported.file_sha256
    assert is_old == (point == "before_edit_upload")
    async with run_export_process(tmp_path / "b", **settings) as (_, client):
        edited = await edit(client, generation_id)
    assert read_hash(store, exported.file_path) == edited.file_sha256
