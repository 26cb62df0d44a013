"""Fault 57: an export server is stopped before it uploads, or once it has uploaded, while another server completes a
newer attempt, or edits the same file. What the other has written stays, and what comes late leaves nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dgx_music.export.v1 import export_pb2
from tests.support.export_client import TIMEOUT_SECONDS, music, new_id, output_options, raises_rpc_error
from tests.support.export_servers import run_export_process
from tests.support.object_storage import library_keys, read_hash
from tests.support.s3_server import S3Server

pytestmark = pytest.mark.slow


@asynccontextmanager
async def while_stopped(process: asyncio.subprocess.Process) -> AsyncIterator[None]:
    """Waits until the process is stopped, and continues it after the block."""
    try:
        await asyncio.to_thread(os.waitid, os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


@pytest.mark.parametrize("point", ["before_upload", "after_upload"])
async def test_late_attempt(s3: S3Server, bucket: str, tmp_path: Path, point: str) -> None:
    store, generation_id, settings = s3.store(bucket), new_id(), s3.settings(bucket)
    armed = {**settings, "DGX_MUSIC_FAILPOINT": f"export.{point}:stop"}
    stopped, running = run_export_process(tmp_path / "a", **armed), run_export_process(tmp_path / "b", **settings)
    async with stopped as (process, late), running as (_, client):
        export = asyncio.ensure_future(late.export(generation_id, music(0.5, seed=1)))
        async with while_stopped(process):
            newer = await client.export(generation_id, music(0.5, seed=2), attempt=2)
        async with raises_rpc_error("ABORTED", "ATTEMPT_SUPERSEDED"):
            await export
        assert library_keys(store) == {newer.file_path}
        assert read_hash(store, newer.file_path) == newer.file_sha256
        async with raises_rpc_error("ABORTED", "ATTEMPT_SUPERSEDED"):
            await late.resume(generation_id, 1)


async def test_late_edit(s3: S3Server, bucket: str, tmp_path: Path) -> None:
    store, generation_id, settings = s3.store(bucket), new_id(), s3.settings(bucket)
    armed = {**settings, "DGX_MUSIC_FAILPOINT": "export.before_edit_upload:stop"}
    stopped, running = run_export_process(tmp_path / "a", **armed), run_export_process(tmp_path / "b", **settings)
    async with stopped as (process, late), running as (_, client):
        exported = await client.export(generation_id, music(0.5))
        request = export_pb2.EditTagsRequest(generation_id=generation_id, title="Late title")
        edit = asyncio.ensure_future(late.stub.EditTags(request, timeout=TIMEOUT_SECONDS))
        async with while_stopped(process):
            request = export_pb2.EditTagsRequest(generation_id=generation_id, genre="Other genre")
            edited = await client.stub.EditTags(request, timeout=TIMEOUT_SECONDS)
        async with raises_rpc_error("NOT_FOUND", match="replaced in the meantime"):
            await edit
        assert read_hash(store, exported.file_path) == edited.file_sha256
        content = bytes(store.get(exported.file_path).bytes())
        assert b"Other genre" in content
        assert b"Late title" not in content


@pytest.mark.parametrize("point", ["before_render_upload", "after_render_upload"])
async def test_late_render(s3: S3Server, bucket: str, tmp_path: Path, point: str) -> None:
    store, generation_id, settings = s3.store(bucket), new_id(), s3.settings(bucket)
    armed = {**settings, "DGX_MUSIC_FAILPOINT": f"export.{point}:stop"}
    stopped, running = run_export_process(tmp_path / "a", **armed), run_export_process(tmp_path / "b", **settings)
    async with stopped as (process, late), running as (_, client):
        await client.export(generation_id, music(0.5))
        request = export_pb2.RenderRequest(generation_id=generation_id, output=output_options("FLAC_24"))
        render = asyncio.ensure_future(late.stub.Render(request, timeout=TIMEOUT_SECONDS))
        async with while_stopped(process):
            newer = await client.export(generation_id, music(0.5, seed=2), attempt=2)
        async with raises_rpc_error("NOT_FOUND", match="replaced in the meantime"):
            await render
        assert library_keys(store) == {newer.file_path}
