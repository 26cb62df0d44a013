"""What there is in the library, how it is kept in order, and whether it is what it was; over real gRPC."""

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
from tests.support.export_client import RATE, TIMEOUT, Client, header, music, new_id, output, parts, refused

DAY = 86_400.0


async def clip(client: Client, seconds: float = 0.5) -> export_pb2.ImportClipResponse:
    file = io.BytesIO()
    soundfile.write(file, music(seconds), RATE, format="WAV", subtype="PCM_16")
    return await client.import_clip(file.getvalue())


async def render(client: Client, generation_id: str, format_: str = "FLAC_16") -> export_pb2.RenderResponse:
    request = export_pb2.RenderRequest(generation_id=generation_id, output=output(format_))
    return await client.stub.Render(request, timeout=TIMEOUT)


async def listed(client: Client, page_size: int = 0, *kinds: str) -> list[export_pb2.LibraryFile]:
    request = export_pb2.ListFilesRequest(page_size=page_size, kinds=[f"FILE_KIND_{kind}" for kind in kinds])
    files: list[export_pb2.LibraryFile] = []
    while True:
        page = await client.stub.ListFiles(request, timeout=TIMEOUT)
        assert len(page.files) <= (page_size or 50)
        files += page.files
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return files


async def clean(client: Client, **policy) -> list[export_pb2.CleanupResponse]:
    return [one async for one in client.stub.Cleanup(export_pb2.CleanupRequest(**policy), timeout=TIMEOUT)]


async def verified(client: Client, *files: tuple[str, str], presence_only: bool = False):
    request = export_pb2.VerifyFilesRequest(
        files=[export_pb2.ExpectedFile(generation_id=one, file_sha256=sha256) for one, sha256 in files],
        presence_only=presence_only,
    )
    return [response async for response in client.stub.VerifyFiles(request, timeout=TIMEOUT)]


def condition(response: export_pb2.VerifyFilesResponse) -> str:
    return export_pb2.FileCondition.Name(response.condition).removeprefix("FILE_CONDITION_")


def aged(client: Client, file_path: str, days: float) -> None:
    """As if it had landed, and been read for the last time, so long ago."""
    then = time.time() - days * DAY
    os.utime(client.data_dir / file_path, (then, then))


def put_back(client: Client, file_path: str, day: str) -> str:
    """As if it had landed on that day; where it is then."""
    path = client.data_dir / "outputs" / day / (client.data_dir / file_path).name
    path.parent.mkdir(parents=True, exist_ok=True)
    (client.data_dir / file_path).rename(path)
    return path.relative_to(client.data_dir).as_posix()


async def test_every_file_is_listed_once_with_what_it_holds(client):
    first, second = new_id(), new_id()
    wav = await client.export(first, music(1))
    mp3 = await client.export(second, music(0.5), output=OutputOptions(format="FILE_FORMAT_MP3"))
    flac = await render(client, first)
    taken = await clip(client)
    older = put_back(client, wav.file_path, "2020/01/02")

    files = await listed(client)
    paths = [older if path == wav.file_path else path for path in (mp3.file_path, wav.file_path)]
    assert [file.file_path for file in files[:2]] == paths, "the newest day first"
    assert files[2].file_path.startswith("clips/")
    assert files[3].file_path == flac.file.file_path
    kinds = [export_pb2.FileKind.Name(file.kind).removeprefix("FILE_KIND_") for file in files]
    assert kinds == ["OUTPUT", "OUTPUT", "CLIP", "RENDER"]
    assert [file.generation_id for file in files] == [second, first, taken.clip_id, first]
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
        assert await listed(client, size) == files
    assert await listed(client, 1, "CLIP", "RENDER") == files[2:]


async def test_pages_go_on_while_files_are_deleted(client):
    ids = sorted((new_id() for _ in range(5)), reverse=True)
    for one in ids:
        await client.export(one, music(0.1))
    request = export_pb2.ListFilesRequest(page_size=2)
    first = await client.stub.ListFiles(request, timeout=TIMEOUT)
    assert [file.generation_id for file in first.files] == ids[:2]
    await client.stub.DeleteFile(export_pb2.DeleteFileRequest(generation_id=ids[1]), timeout=TIMEOUT)
    await client.stub.DeleteFile(export_pb2.DeleteFileRequest(generation_id=ids[2]), timeout=TIMEOUT)
    request.page_token = first.next_page_token
    second = await client.stub.ListFiles(request, timeout=TIMEOUT)
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
async def test_a_list_that_can_not_be_names_the_field(client, fields, field):
    async with refused("INVALID_ARGUMENT", field=field):
        await client.stub.ListFiles(export_pb2.ListFilesRequest(**fields), timeout=TIMEOUT)


async def test_a_token_serves_no_other_list(client):
    for _ in range(2):
        await client.export(new_id(), music(0.1))
    page = await client.stub.ListFiles(export_pb2.ListFilesRequest(page_size=1), timeout=TIMEOUT)
    other = export_pb2.ListFilesRequest(page_token=page.next_page_token, kinds=["FILE_KIND_OUTPUT"])
    async with refused("INVALID_ARGUMENT", field="page_token", says="other kinds"):
        await client.stub.ListFiles(other, timeout=TIMEOUT)


async def test_a_damaged_file_is_listed_without_what_it_holds(client):
    response = await client.export(new_id(), music(0.1))
    (client.data_dir / response.file_path).write_bytes(b"no audio")
    [file] = await listed(client)
    assert (file.file_size_bytes, file.format, file.frames) == (8, 0, 0)


async def test_statistics_add_up(client):
    first = new_id()
    wav = await client.export(first, music(1))
    await client.export(new_id(), music(0.5), output=OutputOptions(format="FILE_FORMAT_FLAC_24"))
    await render(client, first)
    await clip(client)
    put_back(client, wav.file_path, "2020/01/02")
    files = await listed(client)
    found = await client.stub.GetLibraryStatistics(export_pb2.GetLibraryStatisticsRequest(), timeout=TIMEOUT)
    assert (found.total_files, found.total_bytes) == (4, sum(file.file_size_bytes for file in files))
    assert {one.name: one.files for one in found.kinds} == {"output": 2, "clip": 1, "render": 1}
    assert {one.name: one.files for one in found.formats} == {"wav": 2, "flac": 2}
    assert [one.name for one in found.days] == ["2020-01-02", datetime.now(UTC).strftime("%Y-%m-%d")]
    assert found.days[0].bytes == wav.file_size_bytes
    for figures in (found.kinds, found.formats):
        assert sum(one.bytes for one in figures) == found.total_bytes
    assert 0 < found.free_bytes < found.disk_bytes


async def test_each_file_and_render_is_held_against_what_landed(client):
    intact, changed, gone, unknown = (new_id() for _ in range(4))
    exported = {one: await client.export(one, music(0.2)) for one in (intact, changed, gone, unknown)}
    rendered = await render(client, changed)
    path = client.data_dir / exported[changed].file_path
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff")
    (client.data_dir / exported[gone].file_path).unlink()

    wanted = [(one, exported[one].file_sha256) for one in (intact, changed, gone)] + [(unknown, "")]
    found = await verified(client, *wanted)
    assert [(one.generation_id, one.render_id, condition(one)) for one in found] == [
        (intact, "", "INTACT"),
        (changed, "", "CHANGED"),
        (changed, rendered.render_id, "INTACT"),
        (gone, "", "MISSING"),
        (unknown, "", "PRESENT"),
    ]
    assert found[1].file_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found[0].file_path == exported[intact].file_path
    (client.data_dir / rendered.file.file_path).write_bytes(b"no audio")
    assert [condition(one) for one in await verified(client, wanted[1])] == ["CHANGED", "CHANGED"]

    looked = await verified(client, *wanted, presence_only=True)
    assert [condition(one) for one in looked] == ["PRESENT", "PRESENT", "PRESENT", "MISSING", "PRESENT"]
    assert not any(one.file_sha256 for one in looked)


@pytest.mark.parametrize(
    ("count", "name", "field"),
    [(0, "", "files"), (1001, new_id(), "files"), (1, "../etc", "files[0].generation_id")],
    ids=["none", "too many", "no id"],
)
async def test_what_can_not_be_verified_names_the_field(client, count, name, field):
    async with refused("INVALID_ARGUMENT", field=field):
        await verified(client, *[(name, "")] * count)


async def test_old_files_go_and_empty_folders_with_them(client):
    old, new = new_id(), new_id()
    old_response, new_response = await client.export(old, music(0.2)), await client.export(new, music(0.2))
    old_render = await render(client, old)
    old_path = put_back(client, old_response.file_path, "2020/01/02")
    for path in (old_path, old_render.file.file_path):
        aged(client, path, days=31)
    before = client.files()

    would = await clean(client, older_than_seconds=30 * DAY, dry_run=True)
    assert {one.file.file_path for one in would} == {old_path, old_render.file.file_path}
    assert {export_pb2.CleanupReason.Name(one.reason) for one in would} == {"CLEANUP_REASON_AGE"}
    assert client.files() == before, "a dry run changes nothing"
    assert (client.data_dir / old_path).parent.is_dir()

    done = await clean(client, older_than_seconds=30 * DAY)
    assert old_path in {one.file.file_path for one in done}
    assert {path for path in client.files() if not path.startswith("spool/")} == {new_response.file_path}
    assert not (client.data_dir / "outputs/2020").exists()
    assert not list((client.data_dir / "renders").glob("*-*"))
    assert await clean(client, older_than_seconds=30 * DAY) == []
    async with refused("NOT_FOUND"):
        await client.hear(old, level=audio_pb2.AUDIO_LEVEL_FINAL)


async def test_the_oldest_go_until_the_rest_fits(client):
    responses = [await client.export(new_id(), music(0.2 * (1 + index % 2))) for index in range(5)]
    for index, response in enumerate(responses):
        aged(client, response.file_path, days=index + 1)
    sizes = [response.file_size_bytes for response in responses]
    done = await clean(client, keep_newest_bytes=sizes[0] + sizes[1] + 1)
    assert [one.file.file_path for one in done] == [one.file_path for one in reversed(responses[2:])]
    assert {export_pb2.CleanupReason.Name(one.reason) for one in done} == {"CLEANUP_REASON_SIZE"}
    left = await listed(client)
    assert {file.file_path for file in left} == {one.file_path for one in responses[:2]}
    assert await clean(client, keep_newest_bytes=sum(sizes[:2])) == []
    assert len(await clean(client, keep_newest_bytes=0)) == 2


async def test_only_the_kinds_asked_for(client):
    await client.export(new_id(), music(0.1))
    taken = await clip(client)
    for file in await listed(client):
        aged(client, file.file_path, days=31)
    done = await clean(client, older_than_seconds=DAY, kinds=["FILE_KIND_CLIP"])
    assert [one.file.generation_id for one in done] == [taken.clip_id]
    assert len(await listed(client)) == 1


async def test_a_clip_that_is_used_now_and_then_stays(client):
    used, forgotten = await clip(client), await clip(client)
    for file in await listed(client):
        aged(client, file.file_path, days=31)
    await client.hear(used.clip_id)
    [noted] = [file for file in await listed(client) if file.generation_id == used.clip_id]
    assert time.time() - noted.modified_at.seconds < 60
    done = await clean(client, older_than_seconds=30 * DAY)
    assert [one.file.generation_id for one in done] == [forgotten.clip_id]


async def test_what_is_listened_to_stays(client):
    heard, unheard = new_id(), new_id()
    samples = music(20)  # More than the connection holds by itself.
    for one in (heard, unheard):
        response = await client.export(one, samples)
        aged(client, response.file_path, days=31)
    rendered = await render(client, heard)
    aged(client, rendered.file.file_path, days=31)
    listener = await client.listen(heard, level=audio_pb2.AUDIO_LEVEL_FINAL)
    for file in await listed(client):
        aged(client, file.file_path, days=31)

    for dry_run in (True, False):
        done = {one.file.file_path: one for one in await clean(client, older_than_seconds=DAY, dry_run=dry_run)}
        kept = {path for path, one in done.items() if one.kept_because}
        assert kept == {response.file_path.replace(unheard, heard)}
        assert "is being read" in done[kept.pop()].kept_because
    assert len(await listener.rest()) == len(samples)
    async with refused("NOT_FOUND"):
        await client.hear(unheard, level=audio_pb2.AUDIO_LEVEL_FINAL)
    [gone] = await clean(client, older_than_seconds=0)
    assert (gone.file.generation_id, gone.kept_because) == (heard, "")


async def test_what_is_being_made_anew_stays(client):
    generation_id, samples = new_id(), music(0.5)
    first = await client.export(generation_id, samples)
    aged(client, first.file_path, days=31)
    upload = client.upload()
    requests = parts(generation_id, samples, attempt=2)
    await upload.send(header(generation_id, samples, attempt=2), requests[1])
    attempt = 1
    while attempt == 1:  # Until it has begun.
        listener = await client.listen(generation_id)
        attempt = listener.header.attempt
        await listener.until(1)
        listener.call.cancel()
    for dry_run in (True, False):
        [one] = await clean(client, older_than_seconds=DAY, dry_run=dry_run)
        assert one.kept_because
    await upload.send(*requests[2:])
    landed = await upload.finish()
    assert (client.data_dir / landed.file_path).is_file()


async def test_a_render_of_nothing_is_an_orphan(client):
    generation_id, other = new_id(), new_id()
    response = await client.export(generation_id, music(0.2))
    await client.export(other, music(0.2))
    orphan, kept = await render(client, generation_id), await render(client, other)
    (client.data_dir / response.file_path).unlink()
    assert await clean(client) == [], "only empty folders go where nothing is asked for"
    [one] = await clean(client, orphans=True)
    assert (one.file.render_id, one.reason) == (orphan.render_id, export_pb2.CLEANUP_REASON_ORPHAN)
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
async def test_a_policy_that_can_not_be_names_the_field(client, policy, field):
    async with refused("INVALID_ARGUMENT", field=field):
        await clean(client, **policy)


async def test_a_render_is_deleted_alone(client):
    generation_id = new_id()
    await client.export(generation_id, music(0.2))
    flac, mp3 = await render(client, generation_id), await render(client, generation_id, "MP3")

    async def delete(render_id: str) -> None:
        request = export_pb2.DeleteFileRequest(generation_id=generation_id, render_id=render_id)
        await client.stub.DeleteFile(request, timeout=TIMEOUT)

    await delete(flac.render_id)
    assert {file.render_id for file in await listed(client)} == {"", mp3.render_id}
    async with refused("NOT_FOUND", "RENDER_NOT_FOUND"):
        await delete(flac.render_id)
    await delete(mp3.render_id)
    assert not list((client.data_dir / "renders").glob("*-*"))


async def test_a_file_that_is_read_is_deleted_all_the_same_unless_asked_not_to(client):
    generation_id = new_id()
    await client.export(generation_id, music(20))
    listener = await client.listen(generation_id, level=audio_pb2.AUDIO_LEVEL_FINAL)
    await listener.until(1)
    request = export_pb2.DeleteFileRequest(generation_id=generation_id, only_if_unused=True)
    async with refused("FAILED_PRECONDITION", "FILE_IN_USE"):
        await client.stub.DeleteFile(request, timeout=TIMEOUT)
    request.only_if_unused = False
    await client.stub.DeleteFile(request, timeout=TIMEOUT)
    assert len(await listener.rest()) == 20 * RATE
