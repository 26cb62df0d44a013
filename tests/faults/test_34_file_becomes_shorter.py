"""Fault 34: a file becomes shorter while it is read, as another program or a failing disk truncates it. The reader is
told so, instead of waiting for ever."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dgx_music.audio.v1 import audio_pb2
from dgx_music.export.v1 import export_pb2
from tests.support.export_client import (
    TIMEOUT_SECONDS,
    ExportClient,
    music,
    new_id,
    raises_rpc_error,
    run_export_service,
)

SECONDS = 40.0
"""More than the connection buffers."""


async def download(client: ExportClient, generation_id: str, path: Path) -> None:
    call = client.stub.Download(export_pb2.DownloadRequest(generation_id=generation_id), timeout=TIMEOUT_SECONDS)
    parts = aiter(call)
    assert (await anext(parts)).data
    os.truncate(path, 100)
    async for part in parts:
        assert part.data


async def listen(client: ExportClient, generation_id: str, path: Path, level: int) -> None:
    listener = await client.listen(generation_id, level=level)
    await listener.read_until(1)
    os.truncate(path, 100)
    await listener.read_rest()


@pytest.mark.parametrize("reader", ["download", "live", "final"])
async def test_reader_of_a_truncated_file_is_told(tmp_path: Path, reader: str) -> None:
    async with run_export_service(tmp_path) as client:
        generation_id = new_id()
        exported = await client.export(generation_id, music(SECONDS))
        path = tmp_path / exported.file_path
        if reader == "download":
            async with raises_rpc_error("UNAVAILABLE", "FILE_DAMAGED"):
                await download(client, generation_id, path)
        elif reader == "live":
            async with raises_rpc_error("DATA_LOSS", "SPOOL_DAMAGED"):
                await listen(
                    client, generation_id, tmp_path / f"spool/{generation_id}.1.pcm", audio_pb2.AUDIO_LEVEL_LIVE
                )
        else:
            async with raises_rpc_error("UNAVAILABLE", "FILE_DAMAGED"):
                await listen(client, generation_id, path, audio_pb2.AUDIO_LEVEL_FINAL)
        await client.export(new_id(), music(0.2))
