"""Fault 57: an export server is stopped before it uploads, or once it has uploaded, while a newer attempt completes on
another server. The newer attempt's file stays, and the late one leaves nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.support.export_client import music, new_id, raises_rpc_error
from tests.support.export_servers import run_export_process
from tests.support.object_storage import library_keys, read_hash
from tests.support.s3_server import S3Server

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("point", ["before_upload", "after_upload"])
async def test_late_attempt(s3: S3Server, bucket: str, tmp_path: Path, point: str) -> None:
    store, generation_id, settings = s3.store(bucket), new_id(), s3.settings(bucket)
    armed = {**settings, "DGX_MUSIC_FAILPOINT": f"export.{point}:stop"}
    stopped, running = run_export_process(tmp_path / "a", **armed), run_export_process(tmp_path / "b", **settings)
    async with stopped as (process, late), running as (_, client):
        export = asyncio.ensure_future(late.export(generation_id, music(0.5, seed=1)))
        try:
            await asyncio.to_thread(os.waitid, os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            newer = await client.export(generation_id, music(0.5, seed=2), attempt=2)
        finally:
            os.kill(process.pid, signal.SIGCONT)
        async with raises_rpc_error("ABORTED", "ATTEMPT_SUPERSEDED"):
            await export
        assert library_keys(store) == {newer.file_path}
        assert read_hash(store, newer.file_path) == newer.file_sha256
        async with raises_rpc_error("ABORTED", "ATTEMPT_SUPERSEDED"):
            await late.export(generation_id, music(0.5), attempt=1)
