"""Editing tags through MusicService, which keeps storage's hash that of the file, and from the command line."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import re
import uuid
from contextlib import AsyncExitStack
from pathlib import Path

import c2pa
import grpc
import grpc.aio
import mutagen
import pytest
from google.protobuf import json_format

from dgx_music.audio.v1.audio_pb2 import FILE_FORMAT_OGG_OPUS, OutputOptions
from dgx_music.error_status import read_error_details
from dgx_music.export.v1 import export_pb2 as export
from dgx_music.export.v1.export_pb2 import EditTagsRequest, EditTagsResponse, FileCondition
from dgx_music.export.v1.export_pb2_grpc import ExportServiceStub
from dgx_music.limits import MAX_COVER_BYTES
from dgx_music.storage.v1 import storage_pb2 as storage
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from export_service.tagging.containers import read_tags
from gateway.embedded.service_set import LIBRARY
from gateway.rpc import file_verification
from gateway.rpc.service_client import ServiceClient
from gateway.rpc.tag_editing import TagEditing
from service_runtime.settings import Settings
from tests.support import pictures
from tests.support.certificates import make_credentials
from tests.support.command_line import InProcessShell
from tests.support.embedded_services import EmbeddedServices, embedded_services
from tests.support.failpoints import armed
from tests.support.library_files import CHANNELS, RATE, SECONDS, completed

COVER = pictures.png()


async def edit(services: EmbeddedServices, generation_id: str, **changes: object) -> EditTagsResponse:
    request = EditTagsRequest(generation_id=generation_id, **changes)  # type: ignore[arg-type]
    return await services.music.EditTags(request, timeout=SECONDS)


async def verified(services: EmbeddedServices, generation_id: str) -> list[str]:
    request = export.VerifyFilesRequest(files=[export.ExpectedFile(generation_id=generation_id)])
    responses = [one async for one in services.music.VerifyFiles(request, timeout=SECONDS)]
    return [FileCondition.Name(one.condition).removeprefix("FILE_CONDITION_") for one in responses]


async def stored(services: EmbeddedServices, generation_id: str) -> tuple[int, str]:
    """Size and hash of the file as storage has them."""
    request = storage.GetGenerationRequest(id=generation_id)
    generation = (await services.music.GetGeneration(request, timeout=SECONDS)).generation
    return generation.file_size_bytes, generation.metadata.fields["file_sha256"].string_value


async def test_edit_updates_row_and_is_repaired_by_repeating_it(
    library_services: EmbeddedServices, tmp_path: Path
) -> None:
    generation = await completed(library_services)
    edited = await edit(library_services, generation.id, title="Named", cover=COVER.ljust(MAX_COVER_BYTES, b"\0"))
    assert await stored(library_services, generation.id) == (edited.file_size_bytes, edited.file_sha256)
    assert hashlib.sha256((tmp_path / generation.file_path).read_bytes()).hexdigest() == edited.file_sha256
    assert await verified(library_services, generation.id) == ["INTACT"]
    # As if the gateway had been killed between the file and the row.
    request = EditTagsRequest(generation_id=generation.id, title="Renamed")
    await library_services.export.EditTags(request, timeout=SECONDS)
    assert await verified(library_services, generation.id) == ["CHANGED"]
    await edit(library_services, generation.id, title="Renamed")
    assert await verified(library_services, generation.id) == ["INTACT"]


async def test_edit_of_render_leaves_row_alone(library_services: EmbeddedServices) -> None:
    generation = await completed(library_services)
    before = await stored(library_services, generation.id)
    rendered = await library_services.music.Render(export.RenderRequest(generation_id=generation.id), timeout=SECONDS)
    await edit(library_services, generation.id, render_id=rendered.render_id, title="Named")
    assert await stored(library_services, generation.id) == before
    assert await verified(library_services, generation.id) == ["INTACT", "INTACT"]


async def test_last_of_concurrent_edits_is_in_the_row(library_services: EmbeddedServices, tmp_path: Path) -> None:
    generation = await completed(library_services)
    edits = [edit(library_services, generation.id, title=str(number)) for number in range(8)]
    await asyncio.gather(*edits)
    assert await verified(library_services, generation.id) == ["INTACT"]


@pytest.mark.parametrize("in_order", [True, False], ids=["in-order", "overtaken"])
async def test_edits_by_two_gateways_leave_hash_of_the_file(
    library_services: EmbeddedServices, tmp_path: Path, in_order: bool
) -> None:
    generation = await completed(library_services)
    records = [HeldCall(), HeldCall()]
    async with AsyncExitStack() as stack:
        gateways = []
        for held in records:
            storage_client = ServiceClient(
                "dgx_music.storage.v1.StorageService", library_services.address, StorageServiceStub, Settings()
            )
            export_client = ServiceClient(
                "dgx_music.export.v1.ExportService", library_services.address, ExportServiceStub, Settings()
            )
            for client in (storage_client, export_client):
                client.open()
                stack.push_async_callback(client.close)
            held.method, storage_client.stub.UpdateFile = storage_client.stub.UpdateFile, held
            gateways.append(TagEditing(storage_client, export_client))
        edits = []
        for gateway, held, change in zip(gateways, records, ({"title": "T"}, {"artist": "A"}), strict=True):
            request = EditTagsRequest(generation_id=generation.id, **change)
            edits.append(asyncio.create_task(gateway.edit(request)))
            await held.reached.wait()
        for edited, held in list(zip(edits, records, strict=True))[:: 1 if in_order else -1]:
            held.proceed.set()
            await edited
    assert await verified(library_services, generation.id) == ["INTACT"]
    tags = read_tags(tmp_path / generation.file_path, generation.id)
    assert (tags.title, tags.artist) == ("T", "A")


class HeldCall:
    """Calls a method once it may proceed."""

    def __init__(self) -> None:
        self.reached, self.proceed = asyncio.Event(), asyncio.Event()

    async def __call__(self, *arguments: object, **options: object) -> object:
        self.reached.set()
        await self.proceed.wait()
        return await self.method(*arguments, **options)  # type: ignore[attr-defined]


async def test_edit_records_where_the_file_discloses_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = make_credentials(tmp_path)
    async with embedded_services(tmp_path / "data", LIBRARY) as services:
        generation = await completed(services, output=OutputOptions(format=FILE_FORMAT_OGG_OPUS))
        await edit(services, generation.id, title="Plain")
        assert await provenance(services, generation.id) == {"provenance": "VORBIS_COMMENT"}
    with monkeypatch.context() as patched:
        patched.setenv("DGX_MUSIC_C2PA_CERTIFICATE", str(credentials.certificate))
        patched.setenv("DGX_MUSIC_C2PA_PRIVATE_KEY", str(credentials.private_key))
        async with embedded_services(tmp_path / "data", LIBRARY) as services:
            edited = await edit(services, generation.id, title="Signed")
            assert edited.manifest_path == str(Path(edited.file_path).with_suffix(".c2pa"))
            assert await provenance(services, generation.id) == {
                "provenance": "VORBIS_COMMENT, C2PA_SIDECAR",
                "manifest_path": edited.manifest_path,
            }
    async with embedded_services(tmp_path / "data", LIBRARY) as services:
        assert (await edit(services, generation.id, title="Plain again")).manifest_path == ""
        assert await provenance(services, generation.id) == {"provenance": "VORBIS_COMMENT"}


async def provenance(services: EmbeddedServices, generation_id: str) -> dict[str, object]:
    found = await services.music.GetGeneration(storage.GetGenerationRequest(id=generation_id), timeout=SECONDS)
    metadata = json_format.MessageToDict(found.generation.metadata)
    return {name: metadata[name] for name in ("provenance", "manifest_path") if name in metadata}


async def test_file_edited_during_verification_is_intact(
    library_services: EmbeddedServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = await completed(library_services)
    list_expected = file_verification._expected_files

    async def list_and_edit(*arguments):  # type: ignore[no-untyped-def]
        async for files in list_expected(*arguments):
            await edit(library_services, generation.id, title="Meanwhile")
            yield files

    monkeypatch.setattr(file_verification, "_expected_files", list_and_edit)
    assert await verified(library_services, generation.id) == ["INTACT"]


async def test_failed_edit_whose_caller_has_gone_is_no_unexpected_error(tmp_path: Path) -> None:
    unexpected: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unexpected.append(context))
    nowhere = ServiceClient(
        "dgx_music.storage.v1.StorageService", f"unix:{tmp_path}/storage.sock", StorageServiceStub, Settings()
    )
    nowhere.open()
    editing = TagEditing(nowhere, nowhere)  # type: ignore[arg-type]
    caller = asyncio.create_task(editing.edit(EditTagsRequest(generation_id=str(uuid.uuid4()))))
    await asyncio.sleep(0)  # The edit starts.
    caller.cancel()
    await asyncio.wait({caller, *editing._tasks}, timeout=SECONDS)
    del caller
    gc.collect()
    assert unexpected == []
    await nowhere.close()


async def test_only_completed_generations_can_be_edited(library_services: EmbeddedServices) -> None:
    create = storage.CreateGenerationRequest(
        prompt="techno", model_name="sketch", duration_seconds=1, sample_rate_hz=RATE, channels=CHANNELS
    )
    created = await library_services.storage.CreateGeneration(create, timeout=SECONDS)
    for generation_id, code, reason in (
        (created.generation.id, grpc.StatusCode.FAILED_PRECONDITION, "NOT_COMPLETED"),
        ("123e4567-e89b-12d3-a456-426614174000", grpc.StatusCode.NOT_FOUND, "GENERATION_NOT_FOUND"),
        ("x", grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await edit(library_services, generation_id, title="Named")
        assert (raised.value.code(), read_error_details(raised.value).reason) == (code, reason)


def test_tags_are_set_at_generation_edited_and_removed(shell: InProcessShell, tmp_path: Path) -> None:
    (cover := tmp_path / "cover.png").write_bytes(COVER)
    copies = [tmp_path / f"beat-{number}.mp3" for number in (1, 2)]
    arguments = ["--title", "Song", "--artist", "Band", "--cover", str(cover), "--count", "2", "-d", "1"]
    first, second = shell.generations("generate", "techno", *arguments, "-o", str(tmp_path / "beat.mp3"))
    for copy, generation in zip(copies, (first, second), strict=True):
        tags = mutagen.File(copy).tags
        assert (str(tags["TIT2"]), str(tags["TPE1"]), tags.getall("APIC")[0].data) == ("Song", "Band", COVER)
        assert copy.stat().st_size == generation.file_size_bytes
    printed = shell.run(
        "files", "tag", first.id, "--title", "", "--album", "LP", "--genre", "jazz", "--no-cover"
    ).stdout
    assert "AI-generated, in ID3" in printed
    shell.run("download", first.id, "-o", str(copies[0]), "--force")
    tags = mutagen.File(copies[0]).tags
    assert (str(tags["TPE1"]), str(tags["TALB"]), str(tags["TCON"]), tags.getall("APIC")) == ("Band", "LP", "jazz", [])
    assert str(tags["TIT2"]).startswith("jazz")
    rendered = shell.run(
        "render", first.id, "--title", "Single", "--cover", str(cover), "-o", str(tmp_path / "single.flac")
    )
    render_id = next(line.split()[1] for line in rendered.stdout.splitlines() if line.startswith("render"))
    flac = mutagen.File(tmp_path / "single.flac")
    assert (flac.tags["title"], flac.tags["album"], flac.pictures[0].data) == (["Single"], ["LP"], COVER)
    edited = json.loads(shell.run("files", "tag", first.id, "--render", render_id, "--artist", "Duo", "--json").stdout)
    assert edited["file_path"].endswith(f"{render_id}.flac")
    assert "3 intact" in shell.run("files", "verify").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "choose what to edit"),
        (["--cover", "{}", "--no-cover"], "exclude each other"),
        (["--cover", "absent.png"], "--cover: absent.png can't be read: No such file"),
        (["--cover", "{}/text"], "--cover: must be a PNG or JPEG file"),
        (["--title", "x" * 201], "--title: must have at most 200 characters, not 201"),
    ],
)
def test_invalid_edit_is_refused_in_one_line(
    shell: InProcessShell, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "text").write_text("no picture")
    arguments = [argument.replace("{}", str(tmp_path)) for argument in arguments]
    generation_id = "123e4567-e89b-12d3-a456-426614174000"
    if "--title" in arguments:
        [generation] = shell.generations("generate", "techno", "-d", "1")
        generation_id = generation.id
    assert message in shell.error("files", "tag", generation_id, *arguments, status=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cover", "absent.png"], "--cover: absent.png can't be read: No such file"),
        (["--cover", "{}", "--format", "caf"], "CAF files have no place for a picture"),
        (["--cover", "{}", "--detach"], "add the cover later with: dgx-music files tag ID --cover IMAGE"),
        (["--album", "x" * 201], "--album: must have at most 200 characters, not 201"),
    ],
)
def test_unusable_tags_are_refused_before_anything_is_generated(
    shell: InProcessShell, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (cover := tmp_path / "cover.png").write_bytes(COVER)
    arguments = [argument.replace("{}", str(cover)) for argument in arguments]
    assert message in shell.error("generate", "techno", "-d", "1", *arguments, status=2)
    assert shell.generations("history") == []


def test_generation_is_kept_if_its_cover_cannot_be_added(shell: InProcessShell, tmp_path: Path) -> None:
    (cover := tmp_path / "cover.png").write_bytes(COVER)
    copy = tmp_path / "beat.flac"
    with armed("export.before_edit_rename:ENOSPC"):
        done = shell.run("generate", "techno", "-d", "1", "--cover", str(cover), "-o", str(copy), status=1)
    assert re.search(r"error: failed to add the cover: .*disk is full.*: dgx-music files tag .* --cover", done.stderr)
    assert mutagen.File(copy).pictures == []


def test_copies_get_the_manifest_beside_them(shell: InProcessShell, tmp_path: Path) -> None:
    credentials = make_credentials(tmp_path)
    settings = {
        "DGX_MUSIC_C2PA_CERTIFICATE": str(credentials.certificate),
        "DGX_MUSIC_C2PA_PRIVATE_KEY": str(credentials.private_key),
    }
    copy = tmp_path / "beat.ogg"
    done = shell.run("generate", "techno", "-d", "1", "--title", "Night", "-o", str(copy), "--json", **settings)
    generation = json_format.Parse(done.stdout, storage.Generation())
    manifest = shell.data_dir / generation.metadata["manifest_path"]
    assert copy.with_suffix(".c2pa").read_bytes() == manifest.read_bytes()
    with copy.open("rb") as file:
        assert json.loads(c2pa.Reader("audio/ogg", file, manifest.read_bytes()).json())["validation_state"] == "Valid"
    shell.run("files", "export", generation.id, "--to", str(tmp_path / "best"), "--name", "{seed}")
    assert sorted(path.suffix for path in (tmp_path / "best").iterdir()) == [".c2pa", ".ogg"]
    # A WAV file contains its manifest.
    shell.run("render", generation.id, "-o", str(tmp_path / "other.wav"), **settings)
    assert not (tmp_path / "other.c2pa").exists()
