"""Fault 2: export is killed around an fsync or a rename. The library has the old file or the complete new one, whatever
was on its way is swept at the next start, and the next attempt lands."""

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
from dgx_music.export.v1 import export_pb2
from dgx_music.status import read_error_details
from service_runtime.rpc.client_stream import ClientStreamCall
from tests.support.export_client import TIMEOUT, Client, music, new_id, parts, serving
from tests.support.export_servers import export_server

FLAC = OutputOptions(format=audio_pb2.FILE_FORMAT_FLAC_24)
POINTS = "before_fsync", "after_fsync", "before_rename", "after_rename"
RENDER_POINTS = "before_render_fsync", "after_render_fsync", "before_render_rename", "after_render_rename"


async def is_cut_off(call: Awaitable[Any], process: asyncio.subprocess.Process) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert await asyncio.wait_for(process.wait(), TIMEOUT) == -signal.SIGKILL


async def render(client: Client, generation_id: str) -> export_pb2.RenderResponse:
    request = export_pb2.RenderRequest(generation_id=generation_id, output=FLAC)
    return await client.stub.Render(request, timeout=TIMEOUT)


async def attempt_heard(client: Client, generation_id: str) -> int:
    """Which attempt made the file, which is heard to its end."""
    heard = await client.listen(generation_id)
    await heard.rest()
    return int(heard.header.attempt)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("point", POINTS)
async def test_killed_while_the_first_file_lands(tmp_path: Path, point: str) -> None:
    generation_id, samples = new_id(), music(1)
    async with export_server(tmp_path, DGX_MUSIC_FAILPOINT=f"export.{point}:kill") as (process, client):
        await is_cut_off(client.export(generation_id, samples), process)
    async with serving(tmp_path) as client:
        left = client.files()
        landed = await client.export(generation_id, samples, attempt=2)
        assert left == ({landed.file_path} if point == "after_rename" else set())
        assert client.files() == {landed.file_path, f"spool/{generation_id}.2.pcm"}
        assert sha256(tmp_path / landed.file_path) == landed.file_sha256


@pytest.mark.parametrize("point", POINTS)
async def test_killed_while_a_newer_attempt_takes_a_files_place(tmp_path: Path, point: str) -> None:
    generation_id = new_id()
    async with export_server(tmp_path, DGX_MUSIC_FAILPOINT=f"export.{point}:kill@2") as (process, client):
        old = await client.export(generation_id, music(1))
        await render(client, generation_id)
        await is_cut_off(client.export(generation_id, music(2), attempt=2), process)
    async with serving(tmp_path) as client:
        names = {name for name in client.files() if not name.startswith("renders/")}
        assert names == {old.file_path}
        assert await attempt_heard(client, generation_id) == (2 if point == "after_rename" else 1)
        assert (sha256(tmp_path / old.file_path) == old.file_sha256) == (point != "after_rename")
        # No render of a file that is there no more.
        assert (len(client.files()) > 1) == (point in ("before_fsync", "after_fsync"))
        landed = await client.export(generation_id, music(3), attempt=3)
        assert client.files() == {landed.file_path, f"spool/{generation_id}.3.pcm"}


async def test_killed_before_a_former_file_of_another_format_is_gone(tmp_path: Path) -> None:
    generation_id = new_id()
    async with export_server(tmp_path, DGX_MUSIC_FAILPOINT="export.after_rename:kill@2") as (process, client):
        await client.export(generation_id, music(1))
        await is_cut_off(client.export(generation_id, music(2), attempt=2, output=FLAC), process)
    async with serving(tmp_path) as client:
        assert await attempt_heard(client, generation_id) == 2
        landed = await client.export(generation_id, music(3), attempt=3, output=FLAC)
        assert client.files() == {landed.file_path, f"spool/{generation_id}.3.pcm"}


@pytest.mark.parametrize("point", RENDER_POINTS)
async def test_killed_while_a_render_lands(tmp_path: Path, point: str) -> None:
    generation_id = new_id()
    async with export_server(tmp_path, DGX_MUSIC_FAILPOINT=f"export.{point}:kill") as (process, client):
        await client.export(generation_id, music(1))
        finished = client.files()
        await is_cut_off(render(client, generation_id), process)
    async with serving(tmp_path) as client:
        left = client.files() - finished
        made = await render(client, generation_id)
        assert client.files() - finished == {made.file.file_path, made.file.file_path.replace(".flac", ".json")}
        assert left == (client.files() - finished if point == "after_render_rename" else set())
        assert sha256(tmp_path / made.file.file_path) == made.file.file_sha256


async def test_attempts_at_once_and_a_kill(tmp_path: Path) -> None:
    """Of five that race, the newest lands; the others are told that they are void, unless they had landed before."""
    generation_id, attempts = new_id(), range(1, 6)

    async def attempt(client: Client, number: int) -> str:
        sending = ClientStreamCall(client.stub.Export, TIMEOUT)
        try:
            for part in parts(generation_id, music(2, seed=number), attempt=number):
                await sending.write(part)
            return (await sending.finish()).file_sha256
        except grpc.aio.AioRpcError as error:
            return read_error_details(error).reason

    async with export_server(tmp_path) as (process, client):
        landed = await asyncio.gather(*(attempt(client, number) for number in attempts))
        (name,) = (name for name in client.files() if name.startswith("outputs/"))
        assert sha256(tmp_path / name) == landed[-1]
        assert all(outcome == "ATTEMPT_SUPERSEDED" or len(outcome) == len(landed[-1]) for outcome in landed)
        process.kill()
    async with serving(tmp_path) as client:
        assert client.files() == {name, f"spool/{generation_id}.5.pcm"}
        assert await attempt_heard(client, generation_id) == 5
