"""Two export services on one bucket of a real S3 server."""

import asyncio
import hashlib
import io
import time
import urllib.request
from contextlib import AsyncExitStack

import numpy as np
import pytest
import soundfile

from dgx_music.audio.v1 import audio_pb2
from dgx_music.export.v1 import export_pb2
from tests.support.export_client import (
    RATE_HZ,
    TIMEOUT_SECONDS,
    build_requests,
    music,
    new_id,
    output_options,
    raises_rpc_error,
    run_export_service,
)
from tests.support.pictures import png

SAMPLES = music(0.5)
LIVE, FINAL = audio_pb2.AUDIO_LEVEL_LIVE, audio_pb2.AUDIO_LEVEL_FINAL


@pytest.fixture
async def services(s3, bucket, tmp_path, monkeypatch):
    """Clients of two services, each with a data directory of its own."""
    for name, value in s3.settings(bucket).items():
        monkeypatch.setenv(name, value)
    async with AsyncExitStack() as stack:
        folders = tmp_path / "a", tmp_path / "b"
        yield [
            await stack.enter_async_context(run_export_service(folder, library_url=f"s3://{bucket}/music"))
            for folder in folders
        ]


@pytest.fixture
def store(s3, bucket):
    return s3.store(bucket, prefix="music")


def keys(store):
    return {meta["path"] for meta in store.list().collect()}


async def content(client, generation_id, start_byte=0, byte_count=0, **ids):
    request = export_pb2.DownloadRequest(
        generation_id=generation_id, start_byte=start_byte, byte_count=byte_count, **ids
    )
    return b"".join([one.data async for one in client.stub.Download(request, timeout=TIMEOUT_SECONDS)])


async def render(client, generation_id, format_="FLAC_24"):
    request = export_pb2.RenderRequest(generation_id=generation_id, output=output_options(format_))
    return await client.stub.Render(request, timeout=TIMEOUT_SECONDS)


async def edit(client, generation_id, render_id="", **tags):
    request = export_pb2.EditTagsRequest(generation_id=generation_id, render_id=render_id, **tags)
    return await client.stub.EditTags(request, timeout=TIMEOUT_SECONDS)


async def list_files(client, page_size=100, kinds=()):
    files, token = [], ""
    while True:
        request = export_pb2.ListFilesRequest(page_size=page_size, page_token=token, kinds=kinds)
        response = await client.stub.ListFiles(request, timeout=TIMEOUT_SECONDS)
        files += response.files
        token = response.next_page_token
        if not token:
            return files


async def verify(client, generation_id, sha256="", presence_only=False):
    request = export_pb2.VerifyFilesRequest(
        files=[export_pb2.ExpectedFile(generation_id=generation_id, file_sha256=sha256)], presence_only=presence_only
    )
    return [one async for one in client.stub.VerifyFiles(request, timeout=TIMEOUT_SECONDS)]


async def test_the_other_server_has_the_file(services, store):
    a, b = services
    generation_id = new_id()
    exported = await a.export(generation_id, SAMPLES)
    assert exported.file_path == f"outputs/{generation_id}/1.wav"
    assert keys(store) - {"probe"} == {exported.file_path}
    data = await content(b, generation_id)
    assert hashlib.sha256(data).hexdigest() == exported.file_sha256
    assert await content(b, generation_id, 100, 1000) == data[100:1100]
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    assert rate == RATE_HZ
    assert np.array_equal(await b.read_audio(generation_id, level=FINAL), samples)
    assert np.array_equal(await a.read_audio(generation_id, 1000, level=LIVE), SAMPLES[1000:])
    waveform = await b.stub.GetWaveform(export_pb2.GetWaveformRequest(generation_id=generation_id, points=10))
    assert len(waveform.data) == 20
    assert not {path for path in a.files() | b.files() if ".landing" in path}


async def test_renders_and_edits_by_either(services, store):
    a, b = services
    generation_id = new_id()
    await a.export(generation_id, SAMPLES)
    rendered = await render(b, generation_id)
    assert rendered.file.file_path == f"renders/{generation_id}/1/{rendered.render_id}.flac"
    assert await render(a, generation_id) == rendered
    edited = await edit(a, generation_id, title="Over", cover=png(8, 8))
    data = await content(b, generation_id)
    assert hashlib.sha256(data).hexdigest() == edited.file_sha256
    flac = await content(a, generation_id, render_id=rendered.render_id)
    assert b"TITLE=Over" in flac
    own = await edit(b, generation_id, rendered.render_id, title="Own")
    assert hashlib.sha256(await content(a, generation_id, render_id=rendered.render_id)).hexdigest() == own.file_sha256
    await edit(a, generation_id, title="Again")
    assert b"TITLE=Own" in await content(b, generation_id, render_id=rendered.render_id)
    results = await verify(b, generation_id)
    assert {(one.render_id, one.condition) for one in results} == {
        ("", export_pb2.FILE_CONDITION_PRESENT),
        (rendered.render_id, export_pb2.FILE_CONDITION_INTACT),
    }
    await a.stub.DeleteFile(export_pb2.DeleteFileRequest(generation_id=generation_id))
    assert keys(store) <= {"probe"}
    async with raises_rpc_error("NOT_FOUND"):
        await content(b, generation_id)


async def test_a_newer_attempt_replaces_the_file_and_its_renders(services, store):
    a, b = services
    generation_id = new_id()
    await a.export(generation_id, SAMPLES)
    old = await render(a, generation_id)
    newer = await b.export(generation_id, music(0.6), attempt=2)
    assert keys(store) - {"probe"} == {newer.file_path}
    async with raises_rpc_error("NOT_FOUND", "RENDER_NOT_FOUND"):
        await content(a, generation_id, render_id=old.render_id)
    async with raises_rpc_error("ABORTED", "ATTEMPT_SUPERSEDED"):
        await a.export(generation_id, SAMPLES)
    assert hashlib.sha256(await content(a, generation_id)).hexdigest() == newer.file_sha256


async def test_two_servers_race_on_one_generation(services, store):
    a, b = services
    for _ in range(5):
        generation_id = new_id()
        uploads = a.upload(), b.upload()
        attempts = [build_requests(generation_id, music(0.2, seed=one), attempt=one) for one in (1, 2)]
        for upload, requests in zip(uploads, attempts, strict=True):
            await upload.send(*requests)
        first, second = await asyncio.gather(*(upload.finish() for upload in uploads), return_exceptions=True)
        assert not isinstance(second, BaseException), second
        assert keys(store) - {"probe"} == {second.file_path}
        assert hashlib.sha256(await content(a, generation_id)).hexdigest() == second.file_sha256
        if isinstance(first, BaseException):
            assert "superseded" in str(first)
        await b.clear()


async def test_two_servers_edit_one_file(services):
    a, b = services
    generation_id = new_id()
    await a.export(generation_id, SAMPLES)
    for _ in range(5):
        edits = edit(a, generation_id, title="A"), edit(b, generation_id, genre="B")
        results = await asyncio.gather(*edits, return_exceptions=True)
        done = [one for one in results if not isinstance(one, BaseException)]
        assert done
        sha256 = hashlib.sha256(await content(a, generation_id)).hexdigest()
        assert sha256 in {one.file_sha256 for one in done}
        assert (await verify(a, generation_id, sha256))[0].condition == export_pb2.FILE_CONDITION_INTACT


async def test_lists_and_counts(services):
    a, b = services
    ids = sorted(new_id() for _ in range(3))
    for one in ids:
        await a.export(one, music(0.1))
    rendered = await render(a, ids[1])
    file = io.BytesIO()
    soundfile.write(file, SAMPLES, RATE_HZ, format="WAV", subtype="FLOAT")
    clip = await b.import_clip(file.getvalue())
    for page_size in (1, 2, 100):
        files = await list_files(a, page_size)
        assert [one.generation_id for one in files] == [*ids, clip.clip_id, ids[1]]
    assert files[-1].render_id == rendered.render_id
    assert (files[0].frames, files[0].sample_rate_hz, files[0].channels) == (3200, RATE_HZ, 2)
    assert [one.generation_id for one in await list_files(b, 1, [export_pb2.FILE_KIND_CLIP])] == [clip.clip_id]
    statistics = await b.stub.GetLibraryStatistics(export_pb2.GetLibraryStatisticsRequest())
    assert statistics.total_files == 5
    assert statistics.total_bytes == sum(one.file_size_bytes for one in files)
    assert [one.files for one in statistics.days] == [3]
    assert np.array_equal(await a.read_audio(clip.clip_id), SAMPLES)
    await b.clear()
    assert await list_files(a) == []


async def test_a_url_for_a_download(services):
    a, b = services
    generation_id = new_id()
    exported = await a.export(generation_id, SAMPLES)
    rendered = await render(a, generation_id)
    for render_id, file in (("", exported), (rendered.render_id, rendered.file)):
        request = export_pb2.GetDownloadUrlRequest(generation_id=generation_id, render_id=render_id)
        response = await b.stub.GetDownloadUrl(request)
        with await asyncio.to_thread(urllib.request.urlopen, response.url) as answer:
            data = answer.read()
        assert hashlib.sha256(data).hexdigest() == file.file_sha256
        assert len(data) == response.file_size_bytes
        assert 3500 < response.expires_at.seconds - time.time() <= 3601
        assert response.file_name.partition(".")[0] == render_id or generation_id
    async with raises_rpc_error("NOT_FOUND"):
        await b.stub.GetDownloadUrl(export_pb2.GetDownloadUrlRequest(generation_id=new_id()))


async def test_a_folder_has_no_urls(tmp_path):
    refused = raises_rpc_error("FAILED_PRECONDITION", "NO_OBJECT_STORAGE", match="dgx-music download")
    async with run_export_service(tmp_path) as client, refused:
        await client.stub.GetDownloadUrl(export_pb2.GetDownloadUrlRequest(generation_id=new_id()))


async def test_cleanup_finds_remains(services, store, monkeypatch):
    from datetime import timedelta

    from export_service.objects import object_inventory

    monkeypatch.setattr(object_inventory, "UPLOAD_TIME", timedelta(seconds=-60))
    a, b = services
    generation_id = new_id()
    exported = await a.export(generation_id, SAMPLES, attempt=2)
    orphan = f"renders/{new_id()}/1/{new_id()}.flac"
    for key in (f"outputs/{generation_id}/1.wav", f"renders/{generation_id}/1/{new_id()}.flac", orphan):
        store.put(key, b"x")
    assert (await list_files(b))[0].generation_id == generation_id
    results = b.stub.Cleanup(export_pb2.CleanupRequest(orphans=True), timeout=TIMEOUT_SECONDS)
    assert {one.file.file_path async for one in results} >= {orphan}
    assert keys(store) - {"probe"} == {exported.file_path}
