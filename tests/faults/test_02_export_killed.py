"""Fault 2: the export service is killed before or after an fsync or a rename. The library then has the old file or the
complete new one, the next start removes incomplete files but keeps the samples, and the next attempt succeeds, with or
without sending them again."""

from __future__ import annotations

import asyncio
import hashlib
import signal
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from dgx_music.audio.v1 import audio_pb2
from dgx_music.audio.v1.audio_pb2 import OutputOptions
from dgx_music.error_status import read_error_details
from dgx_music.export.v1 import export_pb2
from service_runtime.rpc.client_stream import ClientStreamCall
from tests.support.export_client import (
    TIMEOUT_SECONDS,
    ExportClient,
    build_requests,
    kept_spool,
    music,
    new_id,
    run_export_service,
)
from tests.support.export_servers import run_export_process

FLAC = OutputOptions(format=audio_pb2.FILE_FORMAT_FLAC_24)
POINTS = "before_fsync", "after_fsync", "before_rename", "after_rename"
RENDER_POINTS = "before_render_fsync", "after_render_fsync", "before_render_rename", "after_render_rename"


async def expect_kill_during(call: Awaitable[Any], process: asyncio.subprocess.Process) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert await asyncio.wait_for(process.wait(), TIMEOUT_SECONDS) == -signal.SIGKILL


async def render(client: ExportClient, generation_id: str) -> export_pb2.RenderResponse:
    request = export_pb2.RenderRequest(generation_id=generation_id, output=FLAC)
    return await client.stub.Render(request, timeout=TIMEOUT_SECONDS)


async def stream_attempt(client: ExportClient, generation_id: str) -> int:
    """Streams the file to its end and returns the attempt it is from."""
    listener = await client.listen(generation_id)
    await listener.read_rest()
    return int(listener.header.attempt)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("point", POINTS)
async def test_kill_during_commit_of_first_file(tmp_path: Path, point: str) -> None:
    generation_id, samples = new_id(), music(1)
    async with run_export_process(tmp_path, DGX_MUSIC_FAILPOINT=f"export.{point}:kill") as (process, client):
        await expect_kill_during(client.export(generation_id, samples), process)
    async with run_export_service(tmp_path) as client:
        left, spools = client.library_files(), client.spools()
        if point == "after_rename":
            assert spools == {f"{generation_id}.1.pcm"}
        else:
            assert spools == kept_spool(generation_id)
            resumed = (await client.resume(generation_id, 2)).file
            assert client.library_files() == {resumed.file_path}
            assert sha256(tmp_path / resumed.file_path) == resumed.file_sha256
        exported = await client.export(generation_id, samples, attempt=3)
        assert left == ({exported.file_path} if point == "after_rename" else set())
        assert client.files() == {exported.file_path, f"spool/{generation_id}.3.pcm"}
        assert sha256(tmp_path / exported.file_path) == exported.file_sha256
        assert point == "after_rename" or resumed.pcm_sha256 == exported.pcm_sha256


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
async def test_kill_while_newer_attempt_replaces_file(tmp_path: Path, point: str) -> None:
    generation_id = new_id()
    async with run_export_process(tmp_path, DGX_MUSIC_FAILPOINT=f"export.{point}:kill@2") as (process, client):
        old = await client.export(generation_id, music(1))
        await render(client, generation_id)
        await expect_kill_during(client.export(generation_id, music(2), attempt=2), process)
    async with run_export_service(tmp_path) as client:
        names = {name for name in client.library_files() if not name.startswith("renders/")}
        assert names == {old.file_path}
        assert client.spools() == (
            {f"{generation_id}.2.pcm"} if point == "after_rename" else kept_spool(generation_id, 2)
        )
        assert await stream_attempt(client, generation_id) == (2 if point == "after_rename" else 1)
        assert (sha256(tmp_path / old.file_path) == old.file_sha256) == (point != "after_rename")
        # Renders of the replaced file are gone.
        assert (len(client.library_files()) > 1) == (point in ("before_fsync", "after_fsync"))
        exported = await client.export(generation_id, music(3), attempt=3)
        assert client.files() == {exported.file_path, f"spool/{generation_id}.3.pcm"}


async def test_kill_before_replaced_file_of_other_format_is_removed(tmp_path: Path) -> None:
    generation_id = new_id()
    async with run_export_process(tmp_path, DGX_MUSIC_FAILPOINT="export.after_rename:kill@2") as (process, client):
        await client.export(generation_id, music(1))
        await expect_kill_during(client.export(generation_id, music(2), attempt=2, output=FLAC), process)
    async with run_export_service(tmp_path) as client:
        assert await stream_attempt(client, generation_id) == 2
        exported = await client.export(generation_id, music(3), attempt=3, output=FLAC)
        assert client.files() == {exported.file_path, f"spool/{generation_id}.3.pcm"}


@pytest.mark.slow
@pytest.mark.parametrize("point", RENDER_POINTS)
async def test_kill_during_commit_of_render(tmp_path: Path, point: str) -> None:
    generation_id = new_id()
    async with run_export_process(tmp_path, DGX_MUSIC_FAILPOINT=f"export.{point}:kill") as (process, client):
        await client.export(generation_id, music(1))
        finished = client.files()
        await expect_kill_during(render(client, generation_id), process)
    async with run_export_service(tmp_path) as client:
        left = client.files() - finished
        rendered = await render(client, generation_id)
        assert client.files() - finished == {rendered.file.file_path, rendered.file.file_path.replace(".flac", ".json")}
        # Once its description is in place, the next start completes the render.
        assert left == (client.files() - finished if point.endswith("rename") else set())
        assert sha256(tmp_path / rendered.file.file_path) == rendered.file.file_sha256


@pytest.mark.slow
@pytest.mark.parametrize("point", ["before_edit_rename", "after_edit_rename"])
async def test_kill_during_edit_of_tags(tmp_path: Path, point: str) -> None:
    generation_id = new_id()
    edit = export_pb2.EditTagsRequest(generation_id=generation_id, title="New")
    async with run_export_process(tmp_path, DGX_MUSIC_FAILPOINT=f"export.{point}:kill") as (process, client):
        exported = await client.export(generation_id, music(1))
        await render(client, generation_id)
        await expect_kill_during(client.stub.EditTags(edit, timeout=TIMEOUT_SECONDS), process)
    async with run_export_service(tmp_path) as client:
        path, files = tmp_path / exported.file_path, client.files()
        # The file is the old one or the new one; repeating the edit gives the new one.
        assert (sha256(path) == exported.file_sha256) == (point == "before_edit_rename")
        edited = await client.stub.EditTags(edit, timeout=TIMEOUT_SECONDS)
        assert sha256(path) == edited.file_sha256 != exported.file_sha256
        assert client.files() == files


@pytest.mark.slow
@pytest.mark.parametrize("point", ["after_render_fsync", "before_render_rename"])
async def test_kill_during_edit_of_render(tmp_path: Path, point: str) -> None:
    generation_id = new_id()
    async with run_export_process(tmp_path, DGX_MUSIC_FAILPOINT=f"export.{point}:kill@2") as (process, client):
        exported = await client.export(generation_id, music(1))
        rendered = await render(client, generation_id)
        edit = export_pb2.EditTagsRequest(generation_id=generation_id, render_id=rendered.render_id, title="New")
        await expect_kill_during(client.stub.EditTags(edit, timeout=TIMEOUT_SECONDS), process)
        files = {name for name in client.files() if not name.endswith(".part")}
    async with run_export_service(tmp_path) as client:
        # Whichever version it is, the render has the description of that version.
        assert client.files() == files
        path = tmp_path / rendered.file.file_path
        assert (sha256(path) == rendered.file.file_sha256) == (not point.endswith("rename"))
        expected = export_pb2.ExpectedFile(generation_id=generation_id, file_sha256=exported.file_sha256)
        verify = export_pb2.VerifyFilesRequest(files=[expected])
        responses = [one async for one in client.stub.VerifyFiles(verify, timeout=TIMEOUT_SECONDS)]
        assert [one.condition for one in responses] == [export_pb2.FILE_CONDITION_INTACT] * 2


async def test_newest_of_concurrent_attempts_wins_and_survives_kill(tmp_path: Path) -> None:
    """The others are superseded, unless they were completed earlier."""
    generation_id, attempts = new_id(), range(1, 6)

    async def attempt(client: ExportClient, number: int) -> str:
        call = ClientStreamCall(client.stub.Export, TIMEOUT_SECONDS)
        try:
            for part in build_requests(generation_id, music(2, seed=number), attempt=number):
                await call.write(part)
            return (await call.finish()).file_sha256
        except grpc.aio.AioRpcError as error:
            return read_error_details(error).reason

    async with run_export_process(tmp_path) as (process, client):
        outcomes = await asyncio.gather(*(attempt(client, number) for number in attempts))
        (name,) = (name for name in client.files() if name.startswith("outputs/"))
        assert sha256(tmp_path / name) == outcomes[-1]
        assert all(outcome == "ATTEMPT_SUPERSEDED" or len(outcome) == len(outcomes[-1]) for outcome in outcomes)
        process.kill()
    async with run_export_service(tmp_path) as client:
        assert client.files() == {name, f"spool/{generation_id}.5.pcm"}
        assert await stream_attempt(client, generation_id) == 5
