"""Verifying, listing and cleaning up the library through MusicService, which compares it with storage."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from dgx_music.error_status import read_error_details
from dgx_music.export.v1 import export_pb2 as export
from dgx_music.export.v1.export_pb2 import FileCondition
from dgx_music.storage.v1 import storage_pb2 as storage
from dgx_music.storage.v1.conditioning_pb2 import EDIT_KIND_EXTEND_LEFT, Edit
from gateway.rpc import file_verification
from tests.support.embedded_services import EmbeddedServices
from tests.support.library_files import CHANNELS, RATE, SECONDS, clip, completed, exported

HOUR = 3600.0


async def verified(services: EmbeddedServices, **request: object) -> dict[str, str]:
    """Returns the condition of each file by id."""
    message = export.VerifyFilesRequest(**request)  # type: ignore[arg-type]
    return {
        one.render_id or one.generation_id: FileCondition.Name(one.condition).removeprefix("FILE_CONDITION_")
        async for one in services.music.VerifyFiles(message, timeout=SECONDS)
    }


async def cleaned(services: EmbeddedServices, **request: object) -> dict[str, export.CleanupResponse]:
    message = export.CleanupRequest(**request)  # type: ignore[arg-type]
    return {
        one.file.render_id or one.file.generation_id: one
        async for one in services.music.Cleanup(message, timeout=SECONDS)
    }


async def generation_ids(services: EmbeddedServices) -> set[str]:
    page = await services.music.ListGenerations(storage.ListGenerationsRequest(), timeout=SECONDS)
    return {one.id for one in page.generations}


async def file_ids(services: EmbeddedServices) -> set[str]:
    page = await services.music.ListFiles(export.ListFilesRequest(), timeout=SECONDS)
    return {one.render_id or one.generation_id for one in page.files}


def set_age(data_dir: Path, file_path: str, hours: float) -> None:
    then = time.time() - hours * HOUR
    os.utime(data_dir / file_path, (then, then))


async def test_verify_compares_all_files_with_storage(library_services: EmbeddedServices, tmp_path: Path) -> None:
    intact, changed, missing = [await completed(library_services) for _ in range(3)]
    render = await library_services.music.Render(export.RenderRequest(generation_id=intact.id), timeout=SECONDS)
    (tmp_path / changed.file_path).write_bytes(b"other bytes")
    (tmp_path / missing.file_path).unlink()
    expected = {intact.id: "INTACT", render.render_id: "INTACT", changed.id: "CHANGED", missing.id: "MISSING"}
    assert await verified(library_services) == expected
    assert await verified(library_services, files=[export.ExpectedFile(generation_id=changed.id)]) == {
        changed.id: "CHANGED"
    }
    present = dict.fromkeys(expected, "PRESENT") | {missing.id: "MISSING"}
    assert await verified(library_services, presence_only=True) == present


async def test_verify_reads_all_pages(library_services: EmbeddedServices, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.rpc.file_verification.PAGE_SIZE", 2)
    ids = [(await completed(library_services)).id for _ in range(5)]
    assert await verified(library_services) == dict.fromkeys(ids, "INTACT")


async def test_verify_skips_generation_deleted_meanwhile(
    library_services: EmbeddedServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [(await completed(library_services)).id for _ in range(2)]
    list_expected = file_verification._expected_files

    async def list_then_delete(*arguments: Any) -> AsyncIterator[list[export.ExpectedFile]]:
        async for files in list_expected(*arguments):
            await library_services.music.DeleteGeneration(storage.DeleteGenerationRequest(id=ids[0]), timeout=SECONDS)
            yield files

    monkeypatch.setattr(file_verification, "_expected_files", list_then_delete)
    assert await verified(library_services) == {ids[1]: "INTACT"}


async def test_verify_with_invalid_id_names_its_index(library_services: EmbeddedServices) -> None:
    files = [export.ExpectedFile(generation_id=str(uuid.uuid4()), file_sha256="00"), export.ExpectedFile()]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await verified(library_services, files=files)
    assert list(read_error_details(caught.value).violations) == ["files[1].generation_id"]


async def test_verify_of_unknown_generation_is_not_found(library_services: EmbeddedServices) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await verified(library_services, files=[export.ExpectedFile(generation_id=str(uuid.uuid4()))])
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_cleanup_by_age_deletes_file_and_generation(library_services: EmbeddedServices, tmp_path: Path) -> None:
    old, new = await completed(library_services), await completed(library_services)
    set_age(tmp_path, old.file_path, hours=48)
    reported = await cleaned(library_services, older_than_seconds=24 * HOUR, dry_run=True)
    assert list(reported) == [old.id]
    assert await generation_ids(library_services) == {old.id, new.id}
    assert (tmp_path / old.file_path).is_file()
    deleted = await cleaned(library_services, older_than_seconds=24 * HOUR)
    assert list(deleted) == [old.id]
    assert await generation_ids(library_services) == await file_ids(library_services) == {new.id}
    assert await verified(library_services) == {new.id: "INTACT"}


async def test_cleanup_of_last_file_removes_empty_folders(library_services: EmbeddedServices, tmp_path: Path) -> None:
    await completed(library_services)
    await cleaned(library_services, keep_newest_bytes=0)
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == [".landing"]


async def test_cleanup_deletes_orphans_older_than_an_hour(library_services: EmbeddedServices, tmp_path: Path) -> None:
    owned, orphan, fresh = await completed(library_services), str(uuid.uuid4()), str(uuid.uuid4())
    path = (await exported(library_services, orphan)).file_path
    await exported(library_services, fresh)
    for old in (owned.file_path, path):
        set_age(tmp_path, old, hours=2)
    for dry_run in (True, False):
        found = await cleaned(library_services, orphans=True, dry_run=dry_run)
        assert {one: response.reason for one, response in found.items()} == {orphan: export.CLEANUP_REASON_ORPHAN}
        assert (tmp_path / path).is_file() == dry_run
    assert await file_ids(library_services) == {owned.id, fresh}
    assert await cleaned(library_services, orphans=True, kinds=["FILE_KIND_CLIP"]) == {}


async def test_cleanup_deletes_the_file_of_a_cancelled_generation(
    library_services: EmbeddedServices, tmp_path: Path
) -> None:
    create = storage.CreateGenerationRequest(
        prompt="techno", model_name="sketch", duration_seconds=1.0, sample_rate_hz=RATE, channels=CHANNELS
    )
    cancelled = (await library_services.storage.CreateGeneration(create, timeout=SECONDS)).generation
    request = storage.CancelGenerationRequest(id=cancelled.id)
    await library_services.storage.CancelGeneration(request, timeout=SECONDS)  # The gateway would delete the file.
    path = (await exported(library_services, cancelled.id)).file_path
    set_age(tmp_path, path, hours=2)
    for dry_run in (True, False):
        found = await cleaned(library_services, orphans=True, dry_run=dry_run)
        assert {one: response.reason for one, response in found.items()} == {cancelled.id: export.CLEANUP_REASON_ORPHAN}
        assert (tmp_path / path).is_file() == dry_run
    assert await generation_ids(library_services) == {cancelled.id}


async def test_cleanup_reports_old_orphan_once(library_services: EmbeddedServices, tmp_path: Path) -> None:
    orphan = str(uuid.uuid4())
    set_age(tmp_path, (await exported(library_services, orphan)).file_path, hours=2)
    request = export.CleanupRequest(orphans=True, older_than_seconds=0, dry_run=True)
    found = [one.reason async for one in library_services.music.Cleanup(request, timeout=SECONDS)]
    assert found == [export.CLEANUP_REASON_ORPHAN]


async def test_cleanup_deletes_generations_without_file(library_services: EmbeddedServices, tmp_path: Path) -> None:
    all_services, broken = await completed(library_services), await completed(library_services)
    (tmp_path / broken.file_path).unlink()
    for dry_run in (True, False):
        found = await cleaned(library_services, missing=True, dry_run=dry_run)
        assert {one: response.reason for one, response in found.items()} == {broken.id: export.CLEANUP_REASON_MISSING}
    assert await generation_ids(library_services) == {all_services.id}


async def test_cleanup_keeps_file_of_pending_generation(library_services: EmbeddedServices, tmp_path: Path) -> None:
    create = storage.CreateGenerationRequest(
        prompt="techno", model_name="sketch", duration_seconds=1.0, sample_rate_hz=RATE, channels=CHANNELS
    )
    waiting = (await library_services.storage.CreateGeneration(create, timeout=SECONDS)).generation
    path = (
        await exported(library_services, waiting.id)
    ).file_path  # As a worker leaves it that stops before it reports completion.
    for dry_run in (True, False):
        found = await cleaned(library_services, older_than_seconds=0, dry_run=dry_run)
        assert found[waiting.id].kept_because == "its generation is not finished"
    assert (tmp_path / path).is_file()
    assert await generation_ids(library_services) == {waiting.id}


async def test_cleanup_keeps_row_of_file_being_streamed(library_services: EmbeddedServices) -> None:
    generation = await completed(library_services, seconds=20)
    call = library_services.music.StreamAudio(export.StreamAudioRequest(generation_id=generation.id), timeout=SECONDS)
    responses = aiter(call)
    await anext(responses)
    for dry_run in (True, False):
        found = await cleaned(library_services, keep_newest_bytes=0, dry_run=dry_run)
        assert "is being read" in found[generation.id].kept_because
    assert [one async for one in responses][-1].WhichOneof("part") == "end"
    assert await generation_ids(library_services) == {generation.id}
    assert await verified(library_services) == {generation.id: "INTACT"}


@pytest.mark.parametrize("use", ["continuation", "melody", "style", "edit"])
async def test_cleanup_keeps_what_queued_generations_use(library_services: EmbeddedServices, use: str) -> None:
    source, other, clip_id = (
        await completed(library_services),
        await completed(library_services),
        await clip(library_services),
    )
    render = await library_services.music.Render(export.RenderRequest(generation_id=source.id), timeout=SECONDS)
    create = storage.CreateGenerationRequest(
        prompt="techno", model_name="sketch", duration_seconds=1.0, sample_rate_hz=RATE, channels=CHANNELS
    )
    waiting = []
    for source_id in (source.id, clip_id):
        create.variation_of = other.id  # A variation does not read its audio.
        match use:
            case "continuation":
                create.continuation.source_id = source_id
            case "melody":
                create.conditioning.melody.source_id = source_id
            case "style":
                create.conditioning.style.source_id = source_id
            case "edit":
                create.edit.MergeFrom(Edit(source_id=source_id, kind=EDIT_KIND_EXTEND_LEFT, added_seconds=1))
        waiting.append((await library_services.storage.CreateGeneration(create, timeout=SECONDS)).generation.id)
    for dry_run in (True, False):
        found = await cleaned(library_services, keep_newest_bytes=0, dry_run=dry_run)
        kept = {one for one, response in found.items() if "uses it" in response.kept_because}
        assert (kept, set(found) - kept) == ({source.id, clip_id}, {other.id, render.render_id})
    assert await file_ids(library_services) == {source.id, clip_id}
    await library_services.music.CancelGeneration(storage.CancelGenerationRequest(id=waiting[1]), timeout=SECONDS)
    assert not (await cleaned(library_services, keep_newest_bytes=0))[clip_id].kept_because
    assert await file_ids(library_services) == {source.id}


async def test_delete_file_accepts_clips_and_renders_only(
    library_services: EmbeddedServices,
) -> None:
    generation, clip_id = await completed(library_services), await clip(library_services)
    render = await library_services.music.Render(export.RenderRequest(generation_id=generation.id), timeout=SECONDS)
    assert await file_ids(library_services) == {generation.id, clip_id, render.render_id}
    await library_services.music.DeleteFile(export.DeleteFileRequest(generation_id=clip_id), timeout=SECONDS)
    request = export.DeleteFileRequest(generation_id=generation.id, render_id=render.render_id)
    await library_services.music.DeleteFile(request, timeout=SECONDS)
    assert await file_ids(library_services) == {generation.id}
    for generation_id, code, reason in (
        (generation.id, "FAILED_PRECONDITION", "NOT_A_CLIP"),
        (clip_id, "NOT_FOUND", "FILE_NOT_FOUND"),
        ("../x", "INVALID_ARGUMENT", "INVALID_FIELD"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await library_services.music.DeleteFile(
                export.DeleteFileRequest(generation_id=generation_id), timeout=SECONDS
            )
        assert (caught.value.code().name, read_error_details(caught.value).reason) == (code, reason)


async def test_library_statistics_count_files(library_services: EmbeddedServices) -> None:
    generation = await completed(library_services)
    found = await library_services.music.GetLibraryStatistics(export.GetLibraryStatisticsRequest(), timeout=SECONDS)
    assert (found.total_files, found.total_bytes) == (1, generation.file_size_bytes)
