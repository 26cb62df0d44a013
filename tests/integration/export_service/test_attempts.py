"""Attempts at one generation: the newest is the one that counts."""

from __future__ import annotations

import numpy as np

from dgx_music.audio.v1 import audio_pb2
from dgx_music.export.v1 import export_pb2
from tests.support.export_client import RATE, TIMEOUT, header, music, new_id, parts, refused, serving


async def test_a_newer_attempt_supersedes_an_older_one_in_progress(client):
    generation_id, samples = new_id(), music(3)
    older, good = client.upload(), parts(generation_id, samples)
    await older.send(*good[:4])
    heard = await client.listen(generation_id, wait_seconds=5)
    await heard.until(24_576)
    response = await client.export(generation_id, samples, attempt=2)
    async with refused("ABORTED", "ATTEMPT_SUPERSEDED"):
        await older.call
    async with refused("ABORTED", "ATTEMPT_BROKE_OFF", says=f"start_frame {heard.reader.frames}"):
        await heard.rest()
    resumed = await client.listen(generation_id, heard.reader.frames, audio_pb2.AUDIO_LEVEL_LIVE)
    assert resumed.header.attempt == 2
    np.testing.assert_array_equal(np.concatenate([heard.samples, await resumed.rest()]), samples)
    assert client.files() == {response.file_path, f"spool/{generation_id}.2.pcm"}


async def test_an_attempt_in_progress_is_not_made_twice(client):
    generation_id, samples = new_id(), music(1)
    upload, good = client.upload(), parts(generation_id, samples)
    await upload.send(*good[:2])
    heard = await client.listen(generation_id, wait_seconds=5)
    await heard.until(1)
    async with refused("ABORTED", "ATTEMPT_IN_PROGRESS"):
        await client.send(good[:1], close=False)
    async with refused("FAILED_PRECONDITION", "EXPORT_IN_PROGRESS"):
        await client.stub.DeleteFile(export_pb2.DeleteFileRequest(generation_id=generation_id), timeout=TIMEOUT)
    await upload.send(*good[2:])
    assert (await upload.finish()).frames == RATE
    await heard.rest()


async def test_a_finished_one_is_replaced_by_the_same_or_a_newer_attempt_only(client):
    generation_id = new_id()
    await client.export(generation_id, music(1), attempt=2)
    async with refused("ABORTED", "ATTEMPT_SUPERSEDED"):
        await client.send([header(generation_id, music(1))], close=False)
    again = await client.export(generation_id, music(2), attempt=2)
    assert again.frames == 2 * RATE
    assert client.files() == {again.file_path, f"spool/{generation_id}.2.pcm"}
    newer = await client.export(generation_id, music(3), attempt=3)
    assert client.files() == {newer.file_path, f"spool/{generation_id}.3.pcm"}
    assert newer.file_path == again.file_path
    heard = await client.listen(generation_id)
    assert heard.header.attempt == 3
    await heard.rest()


async def test_a_stale_attempt_is_known_by_the_file_when_nothing_else_remembers(tmp_path):
    generation_id = new_id()
    async with serving(tmp_path, spool_keep_seconds=0) as client:
        await client.export(generation_id, music(1), attempt=2)
    async with serving(tmp_path, spool_keep_seconds=0) as client:
        async with refused("ABORTED", "ATTEMPT_SUPERSEDED"):
            await client.send([header(generation_id, music(1))], close=False)
        heard = await client.listen(generation_id)
        assert (heard.header.attempt, heard.header.level) == (2, audio_pb2.AUDIO_LEVEL_FINAL)
        await heard.rest()
