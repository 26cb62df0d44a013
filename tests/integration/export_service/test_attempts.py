"""Several attempts of one generation, of which the newest one wins."""

from __future__ import annotations

import numpy as np

from dgx_music.audio.v1 import audio_pb2
from dgx_music.export.v1 import export_pb2
from tests.support.export_client import (
    RATE_HZ,
    TIMEOUT_SECONDS,
    build_header,
    build_requests,
    music,
    new_id,
    raises_rpc_error,
    run_export_service,
)


async def test_newer_attempt_aborts_older_one_in_progress(client):
    generation_id, samples = new_id(), music(3)
    older, requests = client.upload(), build_requests(generation_id, samples)
    await older.send(*requests[:4])
    listener = await client.listen(generation_id, wait_seconds=5)
    await listener.read_until(24_576)
    response = await client.export(generation_id, samples, attempt=2)
    async with raises_rpc_error("ABORTED", "ATTEMPT_SUPERSEDED"):
        await older.call
    async with raises_rpc_error("ABORTED", "ATTEMPT_BROKE_OFF", match=f"start_frame={listener.reader.frames}"):
        await listener.read_rest()
    resumed = await client.listen(generation_id, listener.reader.frames, audio_pb2.AUDIO_LEVEL_LIVE)
    assert resumed.header.attempt == 2
    np.testing.assert_array_equal(np.concatenate([listener.samples, await resumed.read_rest()]), samples)
    assert client.files() == {response.file_path, f"spool/{generation_id}.2.pcm"}


async def test_same_attempt_in_progress_is_rejected(client):
    generation_id, samples = new_id(), music(1)
    upload, requests = client.upload(), build_requests(generation_id, samples)
    await upload.send(*requests[:2])
    listener = await client.listen(generation_id, wait_seconds=5)
    await listener.read_until(1)
    async with raises_rpc_error("ABORTED", "ATTEMPT_IN_PROGRESS"):
        await client.send(requests[:1], close=False)
    async with raises_rpc_error("FAILED_PRECONDITION", "EXPORT_IN_PROGRESS"):
        await client.stub.DeleteFile(export_pb2.DeleteFileRequest(generation_id=generation_id), timeout=TIMEOUT_SECONDS)
    await upload.send(*requests[2:])
    assert (await upload.finish()).frames == RATE_HZ
    await listener.read_rest()


async def test_only_same_or_newer_attempt_replaces_completed_one(client):
    generation_id = new_id()
    await client.export(generation_id, music(1), attempt=2)
    async with raises_rpc_error("ABORTED", "ATTEMPT_SUPERSEDED"):
        await client.send([build_header(generation_id, music(1))], close=False)
    repeated = await client.export(generation_id, music(2), attempt=2)
    assert repeated.frames == 2 * RATE_HZ
    assert client.files() == {repeated.file_path, f"spool/{generation_id}.2.pcm"}
    newer = await client.export(generation_id, music(3), attempt=3)
    assert client.files() == {newer.file_path, f"spool/{generation_id}.3.pcm"}
    assert newer.file_path == repeated.file_path
    listener = await client.listen(generation_id)
    assert listener.header.attempt == 3
    await listener.read_rest()


async def test_stale_attempt_is_rejected_after_restart_without_spool(tmp_path):
    generation_id = new_id()
    async with run_export_service(tmp_path, spool_keep_seconds=0) as client:
        await client.export(generation_id, music(1), attempt=2)
    async with run_export_service(tmp_path, spool_keep_seconds=0) as client:
        async with raises_rpc_error("ABORTED", "ATTEMPT_SUPERSEDED"):
            await client.send([build_header(generation_id, music(1))], close=False)
        listener = await client.listen(generation_id)
        assert (listener.header.attempt, listener.header.level) == (2, audio_pb2.AUDIO_LEVEL_FINAL)
        await listener.read_rest()
