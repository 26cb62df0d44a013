"""EditTags on finished files and renders, next to everything else that happens to them."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

import c2pa
import grpc
import grpc.aio
import numpy as np
import pytest

from dgx_music.export.v1 import export_pb2
from dgx_music.export.v1.export_pb2 import EditTagsRequest, EditTagsResponse, ExportResponse
from dgx_music.limits import MAX_COVER_BYTES
from export_service.formats.reader import open_sequential
from export_service.tagging.containers import read_tags
from tests.support import pictures
from tests.support.certificates import make_credentials
from tests.support.export_client import (
    TIMEOUT_SECONDS,
    ExportClient,
    finished_spool,
    music,
    new_id,
    output_options,
    raises_rpc_error,
    run_export_service,
)

WITHOUT_COVER = ("CAF_PCM_24", "W64_PCM_24")
FORMATS = ("WAV_PCM_24", "FLAC_24", "MP3", "OGG_VORBIS", "OGG_OPUS", "AIFF_PCM_24", "M4A_AAC", *WITHOUT_COVER)
COVER = pictures.png()
SIGNED_TYPES = {".wav": "audio/wav", ".flac": "audio/flac", ".mp3": "audio/mpeg", ".m4a": "audio/mp4"}


async def edit(client: ExportClient, generation_id: str, render_id: str = "", **changes: object) -> EditTagsResponse:
    request = EditTagsRequest(generation_id=generation_id, render_id=render_id, **changes)
    return await client.stub.EditTags(request, timeout=TIMEOUT_SECONDS)


async def export_all(client: ExportClient, format_: str, seconds: float = 0.5) -> tuple[str, ExportResponse]:
    generation_id = new_id()
    return generation_id, await client.export(generation_id, music(seconds), output=output_options(format_))


async def render(client: ExportClient, generation_id: str, format_: str) -> export_pb2.RenderResponse:
    request = export_pb2.RenderRequest(generation_id=generation_id, output=output_options(format_))
    return await client.stub.Render(request, timeout=TIMEOUT_SECONDS)


async def conditions(client: ExportClient, generation_id: str, sha256: str) -> list[str]:
    request = export_pb2.VerifyFilesRequest(
        files=[export_pb2.ExpectedFile(generation_id=generation_id, file_sha256=sha256)]
    )
    responses = [response async for response in client.stub.VerifyFiles(request, timeout=TIMEOUT_SECONDS)]
    return [export_pb2.FileCondition.Name(one.condition).removeprefix("FILE_CONDITION_") for one in responses]


def samples(path: Path) -> np.ndarray:
    with open_sequential(path) as file:
        return file.read()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("format_", FORMATS)
async def test_edit_changes_tags_only_and_can_be_repeated_and_undone(client: ExportClient, format_: str) -> None:
    generation_id, exported = await export_all(client, format_)
    path = client.data_dir / exported.file_path
    before, audio = read_tags(path, generation_id), samples(path)
    texts = {"title": "Überraschung", "artist": "Ørsted", "album": "Sol", "genre": "jazz; fusion"}
    cover = {} if format_ in WITHOUT_COVER else {"cover": COVER}
    edited = await edit(client, generation_id, **texts, **cover)
    assert (edited.file_path, edited.marks) == (exported.file_path, exported.marks)
    assert (edited.file_size_bytes, edited.file_sha256) == (path.stat().st_size, sha256(path))
    assert await conditions(client, generation_id, edited.file_sha256) == ["INTACT"]
    np.testing.assert_array_equal(samples(path), audio)
    tags = read_tags(path, generation_id)
    assert (tags.title, tags.artist, tags.album, tags.genre) == ("Überraschung", "Ørsted", "Sol", "jazz, fusion")
    assert (tags.cover and tags.cover.data) == (COVER if cover else None)
    assert (tags.bpm, tags.key, tags.license, tags.attempt) == (before.bpm, before.key, before.license, before.attempt)
    assert await edit(client, generation_id, **texts, **cover) == edited
    # Fields that are not set stay.
    await edit(client, generation_id, title="")
    tags = read_tags(path, generation_id)
    assert (tags.title, tags.artist, tags.genre) == ("jazz, fusion, C minor, 124 BPM", "Ørsted", "jazz, fusion")
    await edit(client, generation_id, title="", artist="", album="", genre="", cover=b"")
    assert read_tags(path, generation_id) == before
    np.testing.assert_array_equal(samples(path), audio)
    assert client.files() == {exported.file_path, *finished_spool(generation_id, is_converted=format_ == "OGG_OPUS")}


async def test_edit_of_render_updates_its_description(client: ExportClient) -> None:
    generation_id, exported = await export_all(client, "WAV_PCM_24")
    rendered = await render(client, generation_id, "OGG_VORBIS")
    edited = await edit(client, generation_id, rendered.render_id, title="Rendered", cover=COVER)
    assert edited.file_path == rendered.file.file_path
    assert await conditions(client, generation_id, exported.file_sha256) == ["INTACT", "INTACT"]
    again = await render(client, generation_id, "OGG_VORBIS")
    assert (again.render_id, again.file.file_sha256) == (rendered.render_id, edited.file_sha256)
    assert again.file.file_size_bytes == edited.file_size_bytes
    assert again.file.file == rendered.file.file


async def test_edit_of_finished_file_is_one_of_its_renders_too(client: ExportClient) -> None:
    generation_id, _ = await export_all(client, "WAV_PCM_24")
    old = [await render(client, generation_id, format_) for format_ in ("FLAC_16", "CAF_PCM_24", "M4A_AAC")]
    audio = [samples(client.data_dir / one.file.file_path) for one in old]
    edited = await edit(client, generation_id, title="Named", cover=COVER)
    again = await edit(client, generation_id, title="Named", cover=COVER)
    assert again == edited
    new = await render(client, generation_id, "MP3")
    assert await conditions(client, generation_id, edited.file_sha256) == ["INTACT"] * 5
    for one, before in zip([*old, new], [*audio, None], strict=True):
        path = client.data_dir / one.file.file_path
        tags = read_tags(path, generation_id)
        has_cover = path.suffix != ".caf"
        assert (tags.title, tags.cover and tags.cover.data) == ("Named", COVER if has_cover else None)
        assert before is None or np.array_equal(samples(path), before)
    renamed = await render(client, generation_id, "FLAC_16")
    assert (renamed.render_id, renamed.file.file_sha256) == (
        old[0].render_id,
        sha256(client.data_dir / renamed.file.file_path),
    )


async def test_render_keeps_tags_of_its_own(client: ExportClient) -> None:
    generation_id, _ = await export_all(client, "WAV_PCM_24")
    await edit(client, generation_id, title="Source", artist="Somebody")
    plain = await render(client, generation_id, "MP3")
    options = output_options("MP3")
    options.publication.title = "Single"
    request = export_pb2.RenderRequest(generation_id=generation_id, output=options)
    named = await client.stub.Render(request, timeout=TIMEOUT_SECONDS)
    assert named.render_id != plain.render_id
    path = client.data_dir / named.file.file_path
    tags = read_tags(path, generation_id)
    assert (tags.title, tags.artist) == ("Single", "Somebody")
    await edit(client, generation_id, named.render_id, cover=COVER, genre="dub")
    changes = {"title": "Album version", "artist": "Band", "genre": "house", "cover": b""}
    await edit(client, generation_id, **changes)
    assert await client.stub.Render(request, timeout=TIMEOUT_SECONDS) != named
    tags = read_tags(path, generation_id)
    assert (tags.title, tags.artist, tags.genre) == ("Single", "Band", "dub")
    assert tags.cover is not None
    tags = read_tags(client.data_dir / plain.file.file_path, generation_id)
    assert (tags.title, tags.artist, tags.genre, tags.cover) == ("Album version", "Band", "house", None)


async def test_damaged_render_does_not_hinder_edit(client: ExportClient) -> None:
    generation_id, _ = await export_all(client, "WAV_PCM_24")
    rendered = [await render(client, generation_id, format_) for format_ in ("FLAC_16", "MP3", "OGG_OPUS")]
    (client.data_dir / rendered[0].file.file_path).write_bytes(b"fLaC no more")
    (client.data_dir / rendered[1].file.file_path).with_suffix(".json").write_text("{}")
    edited = await edit(client, generation_id, title="Named")
    assert sorted(await conditions(client, generation_id, edited.file_sha256)) == [
        "CHANGED",
        "INTACT",
        "INTACT",
        "PRESENT",
    ]
    assert read_tags(client.data_dir / rendered[2].file.file_path, generation_id).title == "Named"


async def test_reader_gets_old_file_to_its_end(client: ExportClient) -> None:
    generation_id, exported = await export_all(client, "WAV_PCM_24", seconds=4)
    content = (client.data_dir / exported.file_path).read_bytes()
    request = export_pb2.DownloadRequest(generation_id=generation_id)
    responses = aiter(client.stub.Download(request, timeout=TIMEOUT_SECONDS))
    received = (await anext(responses)).data
    listener = await client.listen(generation_id)
    await edit(client, generation_id, title="New", cover=COVER)
    received += b"".join([response.data async for response in responses])
    assert received == content
    assert len(await listener.read_rest()) == exported.frames


async def test_largest_cover_fits_into_a_request(client: ExportClient) -> None:
    generation_id, exported = await export_all(client, "OGG_OPUS")
    cover = COVER.ljust(MAX_COVER_BYTES, b"\0")
    await edit(client, generation_id, cover=cover)
    assert read_tags(client.data_dir / exported.file_path, generation_id).cover.data == cover
    async with raises_rpc_error("INVALID_ARGUMENT", field="cover", match="3 MiB"):
        await edit(client, generation_id, cover=cover + b"\0")


@pytest.mark.parametrize(
    ("changes", "code", "reason", "field"),
    [
        ({"title": "x" * 201}, "INVALID_ARGUMENT", "INVALID_FIELD", "title"),
        ({"artist": "x" * 201}, "INVALID_ARGUMENT", "INVALID_FIELD", "artist"),
        ({"album": "x" * 201}, "INVALID_ARGUMENT", "INVALID_FIELD", "album"),
        ({"genre": "x" * 201}, "INVALID_ARGUMENT", "INVALID_FIELD", "genre"),
        ({"cover": b"GIF89a"}, "INVALID_ARGUMENT", "INVALID_FIELD", "cover"),
        ({"cover": COVER}, "FAILED_PRECONDITION", "COVER_NOT_SUPPORTED", None),
        ({"render_id": "x"}, "INVALID_ARGUMENT", "INVALID_FIELD", "render_id"),
        ({"render_id": new_id()}, "NOT_FOUND", "RENDER_NOT_FOUND", None),
        ({"generation_id": "x"}, "INVALID_ARGUMENT", "INVALID_FIELD", "generation_id"),
        ({"generation_id": new_id()}, "NOT_FOUND", "FILE_NOT_FOUND", None),
    ],
    ids=[
        "title",
        "artist",
        "album",
        "genre",
        "cover",
        "unsupported-cover",
        "render",
        "unknown-render",
        "id",
        "unknown-id",
    ],
)
async def test_invalid_edit_changes_nothing(
    client: ExportClient, changes: dict[str, str | bytes], code: str, reason: str, field: str | None
) -> None:
    generation_id, exported = await export_all(client, "CAF_PCM_24")
    async with raises_rpc_error(code, reason, field):
        await edit(client, **{"generation_id": generation_id, "title": "t", **changes})
    assert sha256(client.data_dir / exported.file_path) == exported.file_sha256
    assert client.files() == {exported.file_path, f"spool/{generation_id}.1.pcm"}


async def test_edit_of_damaged_file_is_refused(client: ExportClient) -> None:
    generation_id, exported = await export_all(client, "FLAC_16")
    (client.data_dir / exported.file_path).write_bytes(b"fLaC no more")
    async with raises_rpc_error("UNAVAILABLE", "FILE_DAMAGED"):
        await client.stub.EditTags(EditTagsRequest(generation_id=generation_id, title="t"), timeout=2)


async def test_edited_files_are_signed_again(tmp_path: Path) -> None:
    credentials = make_credentials(tmp_path)
    settings = {"c2pa_certificate": credentials.certificate, "c2pa_private_key": credentials.private_key}
    formats = ("WAV_PCM_24", "FLAC_24", "MP3", "OGG_OPUS", "AIFF_PCM_24", "M4A_AAC")
    trust = c2pa.Context(c2pa.Settings.from_dict({"trust": {"trust_anchors": credentials.root}}))
    exports = []
    async with run_export_service(tmp_path / "data", **settings) as client:
        for format_ in formats:
            generation_id, exported = await export_all(client, format_)
            path, sizes = client.data_dir / exported.file_path, []
            for title in ("First", "Second"):
                edited = await edit(client, generation_id, title=title, cover=COVER)
                assert edited.marks == exported.marks
                assert edited.file_sha256 == sha256(path)
                manifest = path.with_suffix(".c2pa")
                assert manifest.exists() == (path.suffix not in SIGNED_TYPES)
                beside = (manifest.read_bytes(),) if manifest.exists() else ()
                with path.open("rb") as file:
                    reader = c2pa.Reader(SIGNED_TYPES.get(path.suffix, "audio/ogg"), file, *beside, context=trust)
                    found = json.loads(reader.json())
                assert found["validation_state"] == "Trusted"
                assert [manifest["title"] for manifest in found["manifests"].values()] == [title]
                sizes.append(edited.file_size_bytes)
            assert sizes[0] - len("First") <= sizes[1] <= sizes[0] + 10 * len("Second")
            exports.append((generation_id, path))
    # A server without a certificate removes the signature.
    async with run_export_service(tmp_path / "data") as client:
        for generation_id, path in exports:
            edited = await edit(client, generation_id, title="Third")
            assert not {export_pb2.PROVENANCE_MARK_C2PA, export_pb2.PROVENANCE_MARK_C2PA_SIDECAR} & set(edited.marks)
            with path.open("rb") as file, pytest.raises(c2pa.C2paError, match=r"ManifestNotFound|NotSupported"):
                c2pa.Reader(SIGNED_TYPES.get(path.suffix, "audio/ogg"), file)
        assert not list(client.data_dir.rglob("*.c2pa"))


async def test_edits_renders_and_deletions_at_once_leave_consistent_files(client: ExportClient) -> None:
    generation_id, _ = await export_all(client, "WAV_PCM_24")

    async def attempt(call: object) -> str:
        try:
            await call  # type: ignore[misc]
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return "OK"

    renders = [render(client, generation_id, format_) for format_ in ("FLAC_16", "MP3", "OGG_OPUS")]
    edits = [edit(client, generation_id, title=str(number), cover=COVER) for number in range(6)]
    assert set(await asyncio.gather(*map(attempt, [*edits, *renders]))) == {"OK"}
    last = await edit(client, generation_id)
    assert await conditions(client, generation_id, last.file_sha256) == ["INTACT"] * 4
    mp3 = await render(client, generation_id, "MP3")
    delete = export_pb2.DeleteFileRequest(generation_id=generation_id, render_id=mp3.render_id)
    outcomes = await asyncio.gather(
        *(attempt(edit(client, generation_id, mp3.render_id, title=str(number))) for number in range(3)),
        attempt(client.stub.DeleteFile(delete, timeout=TIMEOUT_SECONDS)),
        attempt(render(client, generation_id, "MP3")),
    )
    assert set(outcomes) <= {"OK", "NOT_FOUND"}
    assert set(await conditions(client, generation_id, last.file_sha256)) == {"INTACT"}
    everything = export_pb2.DeleteFileRequest(generation_id=generation_id)
    outcomes = await asyncio.gather(
        *(attempt(edit(client, generation_id, title=str(number))) for number in range(3)),
        attempt(client.stub.DeleteFile(everything, timeout=TIMEOUT_SECONDS)),
    )
    assert set(outcomes) <= {"OK", "NOT_FOUND"}
    assert client.files() == set()
