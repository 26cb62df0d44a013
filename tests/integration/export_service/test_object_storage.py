"""Two export services on one bucket of a real S3 server."""

import asyncio
import hashlib
import io
import time
import urllib.request
from contextlib import AsyncExitStack
from datetime import timedelta

import numpy as np
import pytest
import soundfile

from dgx_music.audio.v1 import audio_pb2
from dgx_music.export.v1 import export_pb2
from export_service.objects import bucket as bucket_module
from export_service.objects import object_inventory
from export_service.objects.bucket import Bucket
from export_service.objects.object_errors import ObjectReplaced
from export_service.objects.write_check import probe
from tests.support.certificates import make_credentials
from tests.support.click_tracks import click_track
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
from tests.support.object_storage import library_keys
from tests.support.pictures import png
from tests.support.s3_server import OWNER

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
    assert library_keys(store) == {exported.file_path}
    data = await content(b, generation_id)
    assert hashlib.sha256(data).hexdigest() == exported.file_sha256
    assert await content(b, generation_id, 100, 1000) == data[100:1100]
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    assert rate == RATE_HZ
    assert np.array_equal(await b.read_audio(generation_id, level=FINAL), samples)
    assert np.array_equal(await a.read_audio(generation_id, 1000, level=LIVE), SAMPLES[1000:])
    waveform = await b.stub.GetWaveform(export_pb2.GetWaveformRequest(generation_id=generation_id, points=10))
    assert len(waveform.data) == 20
    curve = await b.stub.GetLoudnessCurve(export_pb2.GetLoudnessCurveRequest(generation_id=generation_id, points=2))
    assert len(curve.short_term_lufs) <= 2
    assert not {path for path in a.files() | b.files() if ".landing" in path}


@pytest.mark.slow
async def test_the_other_server_hears_the_beats(services):
    a, b = services
    generation_id, times = new_id(), np.arange(0.3, 8.0, 0.5)
    await a.export(generation_id, np.repeat(click_track(times, 8.0, RATE_HZ), 2, axis=1))
    request = export_pb2.GetBeatGridRequest(generation_id=generation_id)
    grid = await b.stub.GetBeatGrid(request, timeout=TIMEOUT_SECONDS)
    np.testing.assert_allclose(grid.beat_seconds, times, atol=0.01)


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
    assert library_keys(store) == set()
    async with raises_rpc_error("NOT_FOUND"):
        await content(b, generation_id)


async def test_a_newer_attempt_replaces_the_file_and_its_renders(services, store):
    a, b = services
    generation_id = new_id()
    await a.export(generation_id, SAMPLES)
    old = await render(a, generation_id)
    newer = await b.export(generation_id, music(0.6), attempt=2)
    assert library_keys(store) == {newer.file_path}
    async with raises_rpc_error("NOT_FOUND", "RENDER_NOT_FOUND"):
        await content(a, generation_id, render_id=old.render_id)
    async with raises_rpc_error("ABORTED", "ATTEMPT_SUPERSEDED"):
        await a.export(generation_id, SAMPLES)
    assert hashlib.sha256(await content(a, generation_id)).hexdigest() == newer.file_sha256


@pytest.mark.slow
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
        assert library_keys(store) == {second.file_path}
        assert hashlib.sha256(await content(a, generation_id)).hexdigest() == second.file_sha256
        if isinstance(first, BaseException):
            assert "superseded" in str(first)
        await b.clear()


@pytest.mark.slow
async def test_two_servers_edit_one_file(services):
    a, b = services
    generation_id = new_id()
    await a.export(generation_id, SAMPLES)
    for number in range(5):
        texts = f"Title {number}", f"Genre {number}"
        edits = edit(a, generation_id, title=texts[0]), edit(b, generation_id, genre=texts[1])
        results = await asyncio.gather(*edits, return_exceptions=True)
        done = [one for one in results if not isinstance(one, BaseException)]
        assert done
        data = await content(a, generation_id)
        assert hashlib.sha256(data).hexdigest() in {one.file_sha256 for one in done}
        for text, result in zip(texts, results, strict=True):
            assert (text.encode() in data) == (result in done), results


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
async def test_cleanup_finds_remains(services, store, monkeypatch):
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
    assert library_keys(store) == {exported.file_path}


@pytest.mark.slow
async def test_manifests_beside_files(s3, bucket, store, tmp_path, monkeypatch):
    for name, value in s3.settings(bucket).items():
        monkeypatch.setenv(name, value)
    credentials = make_credentials(tmp_path)
    signing = {"c2pa_certificate": credentials.certificate, "c2pa_private_key": credentials.private_key}
    generation_id = new_id()
    async with run_export_service(tmp_path / "a", library_url=f"s3://{bucket}/music", **signing) as client:
        ogg = output_options("OGG_VORBIS")
        exported = await client.export(generation_id, SAMPLES, output=ogg)
        rendered = await render(client, generation_id, "OGG_OPUS")
        stems = f"outputs/{generation_id}/1", f"renders/{generation_id}/1/{rendered.render_id}"

        def expected(*files):
            audio = {file.file_path for file in files}
            pairs = zip(stems, files, strict=True)
            manifests = {f"{stem}.{file.file_sha256[:16]}.c2pa" for stem, file in pairs}
            assert manifests == {file.manifest_path for file in files}
            return audio | manifests

        assert library_keys(store) == expected(exported, rendered.file)
        before = await content(client, generation_id, manifest=True)
        assert before == bytes(store.get(f"{stems[0]}.{exported.file_sha256[:16]}.c2pa").bytes())
        assert await content(client, generation_id, render_id=rendered.render_id, manifest=True) != before
        edited = await edit(client, generation_id, title="Other")
        keys = library_keys(store)
        assert edited.manifest_path in keys
        assert len(keys) == 4
        assert not keys & {f"{stems[0]}.{exported.file_sha256[:16]}.c2pa"}
        assert await content(client, generation_id, manifest=True) != before
        assert len(await list_files(client)) == 2
        assert not {path for path in client.files() if ".landing/" in path}
        await client.stub.DeleteFile(
            export_pb2.DeleteFileRequest(generation_id=generation_id, render_id=rendered.render_id)
        )
        assert {key.partition("/")[0] for key in library_keys(store)} == {"outputs"}
        newer = await client.export(generation_id, SAMPLES, attempt=2)
        assert library_keys(store) == {newer.file_path}
        async with raises_rpc_error("NOT_FOUND", "MANIFEST_NOT_FOUND"):
            await content(client, generation_id, manifest=True)


@pytest.mark.slow
def test_an_upload_in_parts(s3, bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(bucket_module, "SINGLE_UPLOAD_BYTES", 1 << 20)
    monkeypatch.setattr(bucket_module, "PART_BYTES", 5 << 20)
    for name, value in s3.settings(bucket).items():
        monkeypatch.setenv(name, value)
    content = np.random.default_rng(1).bytes(12 << 20)
    file = tmp_path / "large"
    file.write_bytes(content)
    objects = Bucket(f"s3://{bucket}/music")
    uploaded = objects.upload("large", file, {"sha256": "00", "Content-Type": "audio/wav"})
    assert uploaded.e_tag.endswith('-3"')
    assert uploaded.size_bytes == len(content)
    assert objects.head("large") == (uploaded, {"sha256": "00", "Content-Type": "audio/wav"})
    assert objects.read_range(uploaded, 4 << 20, 3 << 20) == content[4 << 20 : 7 << 20]
    replaced = objects.upload("large", file, {"sha256": "01"}, replaced=uploaded.e_tag)
    with pytest.raises(ObjectReplaced):
        objects.upload("large", file, {"sha256": "02"}, replaced=uploaded.e_tag)
    with pytest.raises(ObjectReplaced):
        objects.read_range(uploaded, 0, 1)
    assert objects.head("large") == (replaced, objects.head("large")[1])


@pytest.mark.slow
def test_credentials_of_a_file_and_a_public_endpoint(s3, bucket, tmp_path, monkeypatch):
    for name, value in s3.settings(bucket).items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    file.write_text(
        f"[default]\naws_access_key_id = {OWNER.access_key_id}\naws_secret_access_key = {OWNER.secret_access_key}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    public = s3.address.replace("127.0.0.1", "localhost")
    objects = Bucket(f"s3://{bucket}", f"http://{public}")
    probe(objects)
    objects.put_bytes("x", b"content")
    url = objects.sign("x", timedelta(hours=1))
    assert url.startswith(f"http://{public}/")
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"content"
