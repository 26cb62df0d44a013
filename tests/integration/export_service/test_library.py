"""Listing, statistics, verification and cleanup of the library."""

from __future__ import annotations

import hashlib
import io
import os
import time
from datetime import UTC, datetime

import pytest
import soundfile

from dgx_music.audio.v1 import audio_pb2
from dgx_music.audio.v1.audio_pb2 import OutputOptions
from dgx_music.export.v1 import export_pb2
from tests.support.export_client import (
    RATE_HZ,
    TIMEOUT_SECONDS,
    ExportClient,
    build_header,
    build_requests,
    music,
    new_id,
    output_options,
    raises_rpc_error,
)

DAY = 86_400.0


async def import_clip(client: ExportClient, seconds: float = 0.5) -> export_pb2.ImportClipResponse:
    file = io.BytesIO()
    soundfile.write(file, music(seconds), RATE_HZ, format="WAV", subtype="PCM_16")
    return await client.import_clip(file.getvalue())


async def render(client: ExportClient, generation_id: str, format_: str = "FLAC_16") -> export_pb2.RenderResponse:
    request = export_pb2.RenderRequest(generation_id=generation_id, output=output_options(format_))
    return await client.stub.Render(request, timeout=TIMEOUT_SECONDS)


async def list_files(client: ExportClient, page_size: int = 0, *kinds: str) -> list[export_pb2.LibraryFile]:
    request = export_pb2.ListFilesRequest(page_size=page_size, kinds=[f"FILE_KIND_{kind}" for kind in kinds])
    files: list[export_pb2.LibraryFile] = []
    while True:
        page = await client.stub.ListFiles(request, timeout=TIMEOUT_SECONDS)
        assert len(page.files) <= (page_size or 50)
        files += page.files
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return files


async def clean_up(client: ExportClient, **policy) -> list[export_pb2.CleanupResponse]:
    return [
        result async for result in client.stub.Cleanup(export_pb2.CleanupRequest(**policy), timeout=TIMEOUT_SECONDS)
    ]


async def verify(client: ExportClient, *files: tuple[str, str], presence_only: bool = False):
    request = export_pb2.VerifyFilesRequest(
        files=[
            export_pb2.ExpectedFile(generation_id=generation_id, file_sha256=sha256) for generation_id, sha256 in files
        ],
        presence_only=presence_only,
    )
    return [response async for response in client.stub.VerifyFiles(request, timeout=TIMEOUT_SECONDS)]


def condition(response: export_pb2.VerifyFilesResponse) -> str:
    return export_pb2.FileCondition.Name(response.condition).removeprefix("FILE_CONDITION_")


def set_age(client: ExportClient, file_path: str, days: float) -> None:
    """Makes the file look as if it had been added, and last used, this many days ago."""
    then = time.time() - days * DAY
    os.utime(client.data_dir / file_path, (then, then))


def move_to_day(client: ExportClient, file_path: str, day: str) -> str:
    """Makes the file look as if it had been added on that day, and returns its new path."""
    path = client.data_dir / "outputs" / day / (client.data_dir / file_path).name
    path.parent.mkdir(parents=True, exist_ok=True)
    (client.data_dir / file_path).rename(path)
    return path.relative_to(client.data_dir).as_posix()


async def test_list_has_every_file_once_with_its_format(client):
    first, second = new_id(), new_id()
    wav = await client.export(first, music(1))
    mp3 = await client.export(second, music(0.5), output=OutputOptions(format="FILE_FORMAT_MP3"))
    flac = await render(client, first)
    imported = await import_clip(client)
    older = move_to_day(client, wav.file_path, "2020/01/02")

    files = await list_files(client)
    paths = [older if path == wav.file_path else path for path in (mp3.file_path, wav.file_path)]
    assert [file.file_path for file in files[:2]] == paths, "the newest day comes first"
    assert files[2].file_path.startswith("clips/")
    assert files[3].file_path == flac.file.file_path
    kinds = [export_pb2.FileKind.Name(file.kind).removeprefix("FILE_KIND_") for file in files]
    assert kinds == ["OUTPUT", "OUTPUT", "CLIP", "RENDER"]
    assert [file.generation_id for file in files] == [second, first, imported.clip_id, first]
    assert [file.render_id for file in files] == ["", "", "", flac.render_id]
    for file in files:
        path = client.data_dir / file.file_path
        assert file.file_size_bytes == path.stat().st_size
        assert file.modified_at.ToDatetime(tzinfo=UTC).timestamp() == pytest.approx(path.stat().st_mtime, abs=1e-3)
        info = soundfile.info(path)
        assert (file.sample_rate_hz, file.channels, file.frames) == (info.samplerate, info.channels, info.frames)
    formats = [audio_pb2.FileFormat.Name(file.format).removeprefix("FILE_FORMAT_") for file in files]
    assert formats == ["MP3", "WAV_PCM_24", "WAV_FLOAT", "FLAC_16"]

    for size in (1, 2, 3):
        assert await list_files(client, size) == files
    assert await list_files(client, 1, "CLIP", "RENDER") == files[2:]


async def test_next_page_continues_after_deletions(client):
    ids = sorted((new_id() for _ in range(5)), reverse=True)
    for generation_id in ids:
        await client.export(generation_id, music(0.1))
    request = export_pb2.ListFilesRequest(page_size=2)
    first = await client.stub.ListFiles(request, timeout=TIMEOUT_SECONDS)
    assert [file.generation_id for file in first.files] == ids[:2]
    await client.stub.DeleteFile(export_pb2.DeleteFileRequest(generation_id=ids[1]), timeout=TIMEOUT_SECONDS)
    await client.stub.DeleteFile(export_pb2.DeleteFileRequest(generation_id=ids[2]), timeout=TIMEOUT_SECONDS)
    request.page_token = first.next_page_token
    second = await client.stub.ListFiles(request, timeout=TIMEOUT_SECONDS)
    assert [file.generation_id for file in second.files] == ids[3:]
    assert second.next_page_token == ""


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"page_size": -1}, "page_size"),
        ({"page_token": "x"}, "page_token"),
        ({"page_token": "WzEsICIvZXRjIl0="}, "page_token"),
        ({"kinds": [9]}, "kinds[0]"),
    ],
)
async def test_invalid_list_request_is_rejected(client, fields, field):
    async with raises_rpc_error("INVALID_ARGUMENT", field=field):
        await client.stub.ListFiles(export_pb2.ListFilesRequest(**fields), timeout=TIMEOUT_SECONDS)


async def test_page_token_of_other_kinds_is_rejected(client):
    for _ in range(2):
        await client.export(new_id(), music(0.1))
    page = await client.stub.ListFiles(export_pb2.ListFilesRequest(page_size=1), timeout=TIMEOUT_SECONDS)
    other = export_pb2.ListFilesRequest(page_token=page.next_page_token, kinds=["FILE_KIND_OUTPUT"])
    async with raises_rpc_error("INVALID_ARGUMENT", field="page_token", match="other kinds"):
        await client.stub.ListFiles(other, timeout=TIMEOUT_SECONDS)


async def test_damaged_file_is_listed_without_format(client):
    response = await client.export(new_id(), music(0.1))
    (client.data_dir / response.file_path).write_bytes(b"no audio")
    [file] = await list_files(client)
    assert (file.file_size_bytes, file.format, file.frames) == (8, 0, 0)


async def test_library_statistics(client):
    first = new_id()
    wav = await client.export(first, music(1))
    await client.export(new_id(), music(0.5), output=OutputOptions(format="FILE_FORMAT_FLAC_24"))
    await render(client, first)
    await import_clip(client)
    move_to_day(client, wav.file_path, "2020/01/02")
    files = await list_files(client)
    found = await client.stub.GetLibraryStatistics(export_pb2.GetLibraryStatisticsRequest(), timeout=TIMEOUT_SECONDS)
    assert (found.total_files, found.total_bytes) == (4, sum(file.file_size_bytes for file in files))
    assert {group.name: group.files for group in found.kinds} == {"output": 2, "clip": 1, "render": 1}
    assert {group.name: group.files for group in found.formats} == {"wav": 2, "flac": 2}
    assert [group.name for group in found.days] == ["2020-01-02", datetime.now(UTC).strftime("%Y-%m-%d")]
    assert found.days[0].bytes == wav.file_size_bytes
    for groups in (found.kinds, found.formats):
        assert sum(group.bytes for group in groups) == found.total_bytes
    assert 0 < found.free_bytes < found.disk_bytes
    assert found.spool_bytes == sum(path.stat().st_size for path in (client.data_dir / "spool").iterdir()) > 0


async def test_verify_compares_files_and_renders_with_their_hashes(client):
    intact, changed, missing, unknown = (new_id() for _ in range(4))
    exported = {name: await client.export(name, music(0.2)) for name in (intact, changed, missing, unknown)}
    rendered = await render(client, changed)
    path = client.data_dir / exported[changed].file_path
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff")
    (client.data_dir / exported[missing].file_path).unlink()

    wanted = [(name, exported[name].file_sha256) for name in (intact, changed, missing)] + [(unknown, "")]
    found = await verify(client, *wanted)
    assert [(result.generation_id, result.render_id, condition(result)) for result in found] == [
        (intact, "", "INTACT"),
        (changed, "", "CHANGED"),
        (changed, rendered.render_id, "INTACT"),
        (missing, "", "MISSING"),
        (unknown, "", "PRESENT"),
    ]
    assert found[1].file_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found[0].file_path == exported[intact].file_path
    (client.data_dir / rendered.file.file_path).write_bytes(b"no audio")
    assert [condition(result) for result in await verify(client, wanted[1])] == ["CHANGED", "CHANGED"]

    presence = await verify(client, *wanted, presence_only=True)
    assert [condition(result) for result in presence] == ["PRESENT", "PRESENT", "PRESENT", "MISSING", "PRESENT"]
    assert not any(result.file_sha256 for result in presence)


@pytest.mark.parametrize(
    ("count", "name", "field"),
    [(0, "", "files"), (1001, new_id(), "files"), (1, "../etc", "files[0].generation_id")],
    ids=["none", "too many", "no id"],
)
async def test_invalid_verify_request_is_rejected(client, count, name, field):
    async with raises_rpc_error("INVALID_ARGUMENT", field=field):
        await verify(client, *[(name, "")] * count)


async def test_cleanup_by_age_removes_files_and_empty_folders(client):
    old, new = new_id(), new_id()
    old_response, new_response = await client.export(old, music(0.2)), await client.export(new, music(0.2))
    old_render = await render(client, old)
    old_path = move_to_day(client, old_response.file_path, "2020/01/02")
    for path in (old_path, old_render.file.file_path):
        set_age(client, path, days=31)
    before = client.files()

    planned = await clean_up(client, older_than_seconds=30 * DAY, dry_run=True)
    assert {result.file.file_path for result in planned} == {old_path, old_render.file.file_path}
    assert {export_pb2.CleanupReason.Name(result.reason) for result in planned} == {"CLEANUP_REASON_AGE"}
    assert client.files() == before, "a dry run must not change anything"
    assert (client.data_dir / old_path).parent.is_dir()

    done = await clean_up(client, older_than_seconds=30 * DAY)
    assert old_path in {result.file.file_path for result in done}
    assert {path for path in client.files() if not path.startswith("spool/")} == {new_response.file_path}
    assert not (client.data_dir / "outputs/2020").exists()
    assert not list((client.data_dir / "renders").glob("*-*"))
    assert await clean_up(client, older_than_seconds=30 * DAY) == []
    async with raises_rpc_error("NOT_FOUND"):
        await client.read_audio(old, level=audio_pb2.AUDIO_LEVEL_FINAL)


async def test_cleanup_by_size_removes_oldest_files(client):
    responses = [await client.export(new_id(), music(0.2 * (1 + index % 2))) for index in range(5)]
    for index, response in enumerate(responses):
        set_age(client, response.file_path, days=index + 1)
    sizes = [response.file_size_bytes for response in responses]
    done = await clean_up(client, keep_newest_bytes=sizes[0] + sizes[1] + 1)
    assert [result.file.file_path for result in done] == [result.file_path for result in reversed(responses[2:])]
    assert {export_pb2.CleanupReason.Name(result.reason) for result in done} == {"CLEANUP_REASON_SIZE"}
    left = await list_files(client)
    assert {file.file_path for file in left} == {result.file_path for result in responses[:2]}
    assert await clean_up(client, keep_newest_bytes=sum(sizes[:2])) == []
    assert len(await clean_up(client, keep_newest_bytes=0)) == 2


async def test_cleanup_considers_requested_kinds_only(client):
    await client.export(new_id(), music(0.1))
    imported = await import_clip(client)
    for file in await list_files(client):
        set_age(client, file.file_path, days=31)
    done = await clean_up(client, older_than_seconds=DAY, kinds=["FILE_KIND_CLIP"])
    assert [result.file.generation_id for result in done] == [imported.clip_id]
    assert len(await list_files(client)) == 1


async def test_cleanup_keeps_clip_that_was_used_recently(client):
    used, forgotten = await import_clip(client), await import_clip(client)
    for file in await list_files(client):
        set_age(client, file.file_path, days=31)
    await client.read_audio(used.clip_id)
    [noted] = [file for file in await list_files(client) if file.generation_id == used.clip_id]
    assert time.time() - noted.modified_at.seconds < 60
    done = await clean_up(client, older_than_seconds=30 * DAY)
    assert [result.file.generation_id for result in done] == [forgotten.clip_id]


async def test_cleanup_keeps_file_that_is_being_read(client):
    listened, unused = new_id(), new_id()
    samples = music(20)  # More than the connection buffers.
    for generation_id in (listened, unused):
        response = await client.export(generation_id, samples)
        set_age(client, response.file_path, days=31)
    rendered = await render(client, listened)
    set_age(client, rendered.file.file_path, days=31)
    listener = await client.listen(listened, level=audio_pb2.AUDIO_LEVEL_FINAL)
    for file in await list_files(client):
        set_age(client, file.file_path, days=31)

    for dry_run in (True, False):
        done = {
            result.file.file_path: result for result in await clean_up(client, older_than_seconds=DAY, dry_run=dry_run)
        }
        kept = {path for path, result in done.items() if result.kept_because}
        assert kept == {response.file_path.replace(unused, listened)}
        assert "is being read" in done[kept.pop()].kept_because
    assert len(await listener.read_rest()) == len(samples)
    async with raises_rpc_error("NOT_FOUND"):
        await client.read_audio(unused, level=audio_pb2.AUDIO_LEVEL_FINAL)
    [removed] = await clean_up(client, older_than_seconds=0)
    assert (removed.file.generation_id, removed.kept_because) == (listened, "")


async def test_cleanup_keeps_file_that_is_being_exported_again(client):
    generation_id, samples = new_id(), music(0.5)
    first = await client.export(generation_id, samples)
    set_age(client, first.file_path, days=31)
    upload = client.upload()
    requests = build_requests(generation_id, samples, attempt=2)
    await upload.send(build_header(generation_id, samples, attempt=2), requests[1])
    attempt = 1
    while attempt == 1:  # Until the export has begun.
        listener = await client.listen(generation_id)
        attempt = listener.header.attempt
        await listener.read_until(1)
        listener.call.cancel()
    for dry_run in (True, False):
        [result] = await clean_up(client, older_than_seconds=DAY, dry_run=dry_run)
        assert result.kept_because
    await upload.send(*requests[2:])
    exported = await upload.finish()
    assert (client.data_dir / exported.file_path).is_file()


async def test_cleanup_of_orphans_removes_render_without_generation_file(client):
    generation_id, other = new_id(), new_id()
    response = await client.export(generation_id, music(0.2))
    await client.export(other, music(0.2))
    orphan, kept = await render(client, generation_id), await render(client, other)
    (client.data_dir / response.file_path).unlink()
    assert await clean_up(client) == [], "an empty policy must only remove empty folders"
    [result] = await clean_up(client, orphans=True)
    assert (result.file.render_id, result.reason) == (orphan.render_id, export_pb2.CLEANUP_REASON_ORPHAN)
    assert not list((client.data_dir / "renders").glob(f"{generation_id}*"))
    assert (client.data_dir / kept.file.file_path).is_file()


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        ({"older_than_seconds": -1}, "older_than_seconds"),
        ({"older_than_seconds": float("nan")}, "older_than_seconds"),
        ({"older_than_seconds": 1e300}, "older_than_seconds"),
        ({"keep_newest_bytes": -1}, "keep_newest_bytes"),
        ({"kinds": [0]}, "kinds[0]"),
    ],
)
async def test_invalid_cleanup_request_is_rejected(client, policy, field):
    async with raises_rpc_error("INVALID_ARGUMENT", field=field):
        await clean_up(client, **policy)


async def test_delete_of_single_render(client):
    generation_id = new_id()
    await client.export(generation_id, music(0.2))
    flac, mp3 = await render(client, generation_id), await render(client, generation_id, "MP3")

    async def delete(render_id: str) -> None:
        request = export_pb2.DeleteFileRequest(generation_id=generation_id, render_id=render_id)
        await client.stub.DeleteFile(request, timeout=TIMEOUT_SECONDS)

    await delete(flac.render_id)
    assert {file.render_id for file in await list_files(client)} == {"", mp3.render_id}
    async with raises_rpc_error("NOT_FOUND", "RENDER_NOT_FOUND"):
        await delete(flac.render_id)
    await delete(mp3.render_id)
    assert not list((client.data_dir / "renders").glob("*-*"))


async def test_delete_of_file_being_read(client):
    generation_id = new_id()
    await client.export(generation_id, music(20))
    listener = await client.listen(generation_id, level=audio_pb2.AUDIO_LEVEL_FINAL)
    await listener.read_until(1)
    request = export_pb2.DeleteFileRequest(generation_id=generation_id, only_if_unused=True)
    async with raises_rpc_error("FAILED_PRECONDITION", "FILE_IN_USE"):
        await client.stub.DeleteFile(request, timeout=TIMEOUT_SECONDS)
    request.only_if_unused = False
    await client.stub.DeleteFile(request, timeout=TIMEOUT_SECONDS)
    assert len(await listener.read_rest()) == 20 * RATE_HZ
