"""Looking after the files through MusicService: with what storage knows of them."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from dgx_music.export.v1 import export_pb2 as export
from dgx_music.export.v1.export_pb2 import FileCondition
from dgx_music.status import read_failure
from dgx_music.storage.v1 import storage_pb2 as storage
from gateway.rpc import file_verification
from tests.support.embedded_services import House
from tests.support.library_files import CHANNELS, RATE, SECONDS, clip, completed, exported

HOUR = 3600.0


async def verified(house: House, **request: object) -> dict[str, str]:
    """Id → condition."""
    asked = export.VerifyFilesRequest(**request)  # type: ignore[arg-type]
    return {
        one.render_id or one.generation_id: FileCondition.Name(one.condition).removeprefix("FILE_CONDITION_")
        async for one in house.music.VerifyFiles(asked, timeout=SECONDS)
    }


async def cleaned(house: House, **request: object) -> dict[str, export.CleanupResponse]:
    asked = export.CleanupRequest(**request)  # type: ignore[arg-type]
    return {
        one.file.render_id or one.file.generation_id: one async for one in house.music.Cleanup(asked, timeout=SECONDS)
    }


async def known(house: House) -> set[str]:
    page = await house.music.ListGenerations(storage.ListGenerationsRequest(), timeout=SECONDS)
    return {one.id for one in page.generations}


async def listed(house: House) -> set[str]:
    page = await house.music.ListFiles(export.ListFilesRequest(), timeout=SECONDS)
    return {one.render_id or one.generation_id for one in page.files}


def aged(data_dir: Path, file_path: str, hours: float) -> None:
    then = time.time() - hours * HOUR
    os.utime(data_dir / file_path, (then, then))


async def test_all_files_are_held_against_what_storage_keeps(idle: House, tmp_path: Path) -> None:
    intact, changed, gone = [await completed(idle) for _ in range(3)]
    render = await idle.music.Render(export.RenderRequest(generation_id=intact.id), timeout=SECONDS)
    (tmp_path / changed.file_path).write_bytes(b"other bytes")
    (tmp_path / gone.file_path).unlink()
    expected = {intact.id: "INTACT", render.render_id: "INTACT", changed.id: "CHANGED", gone.id: "MISSING"}
    assert await verified(idle) == expected
    assert await verified(idle, files=[export.ExpectedFile(generation_id=changed.id)]) == {changed.id: "CHANGED"}
    there = dict.fromkeys(expected, "PRESENT") | {gone.id: "MISSING"}
    assert await verified(idle, presence_only=True) == there


async def test_more_generations_than_a_page_has(idle: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.rpc.file_verification.PAGE", 2)
    made = [(await completed(idle)).id for _ in range(5)]
    assert await verified(idle) == dict.fromkeys(made, "INTACT")


async def test_what_is_deleted_while_it_is_verified_is_not_told_as_missing(
    idle: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [(await completed(idle)).id for _ in range(2)]
    listed_pages = file_verification._expected

    async def then_deleted(*arguments: Any) -> AsyncIterator[list[export.ExpectedFile]]:
        async for files in listed_pages(*arguments):
            await idle.music.DeleteGeneration(storage.DeleteGenerationRequest(id=made[0]), timeout=SECONDS)
            yield files

    monkeypatch.setattr(file_verification, "_expected", then_deleted)
    assert await verified(idle) == {made[1]: "INTACT"}


async def test_an_id_that_is_none_is_named_by_its_place(idle: House) -> None:
    files = [export.ExpectedFile(generation_id=str(uuid.uuid4()), file_sha256="00"), export.ExpectedFile()]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await verified(idle, files=files)
    assert list(read_failure(caught.value).violations) == ["files[1].generation_id"]


async def test_a_generation_that_is_not_known_can_not_be_verified(idle: House) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await verified(idle, files=[export.ExpectedFile(generation_id=str(uuid.uuid4()))])
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_with_a_file_that_is_too_old_its_generation_goes(idle: House, tmp_path: Path) -> None:
    old, new = await completed(idle), await completed(idle)
    aged(tmp_path, old.file_path, hours=48)
    would = await cleaned(idle, older_than_seconds=24 * HOUR, dry_run=True)
    assert list(would) == [old.id]
    assert await known(idle) == {old.id, new.id}
    assert (tmp_path / old.file_path).is_file()
    done = await cleaned(idle, older_than_seconds=24 * HOUR)
    assert list(done) == [old.id]
    assert await known(idle) == await listed(idle) == {new.id}
    assert await verified(idle) == {new.id: "INTACT"}


async def test_the_last_file_takes_its_folders_along(idle: House, tmp_path: Path) -> None:
    await completed(idle)
    await cleaned(idle, keep_newest_bytes=0)
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == [".landing"]


async def test_files_of_no_generation_go_once_they_are_an_hour_old(idle: House, tmp_path: Path) -> None:
    owned, stray, fresh = await completed(idle), str(uuid.uuid4()), str(uuid.uuid4())
    path = (await exported(idle, stray)).file_path
    await exported(idle, fresh)
    for old in (owned.file_path, path):
        aged(tmp_path, old, hours=2)
    for dry_run in (True, False):
        found = await cleaned(idle, orphans=True, dry_run=dry_run)
        assert {one: response.reason for one, response in found.items()} == {stray: export.CLEANUP_REASON_ORPHAN}
        assert (tmp_path / path).is_file() == dry_run
    assert await listed(idle) == {owned.id, fresh}
    assert await cleaned(idle, orphans=True, kinds=["FILE_KIND_CLIP"]) == {}


async def test_a_stray_that_is_also_too_old_is_told_once(idle: House, tmp_path: Path) -> None:
    stray = str(uuid.uuid4())
    aged(tmp_path, (await exported(idle, stray)).file_path, hours=2)
    request = export.CleanupRequest(orphans=True, older_than_seconds=0, dry_run=True)
    found = [one.reason async for one in idle.music.Cleanup(request, timeout=SECONDS)]
    assert found == [export.CLEANUP_REASON_ORPHAN]


async def test_generations_whose_file_is_gone_go(idle: House, tmp_path: Path) -> None:
    whole, broken = await completed(idle), await completed(idle)
    (tmp_path / broken.file_path).unlink()
    for dry_run in (True, False):
        found = await cleaned(idle, missing=True, dry_run=dry_run)
        assert {one: response.reason for one, response in found.items()} == {broken.id: export.CLEANUP_REASON_MISSING}
    assert await known(idle) == {whole.id}


async def test_what_is_being_made_anew_is_kept(idle: House, tmp_path: Path) -> None:
    create = storage.CreateGenerationRequest(
        prompt="techno", model_name="sketch", duration_seconds=1.0, sample_rate_hz=RATE, channels=CHANNELS
    )
    waiting = (await idle.storage.CreateGeneration(create, timeout=SECONDS)).generation
    path = (await exported(idle, waiting.id)).file_path  # As a worker left it that did not come to tell.
    for dry_run in (True, False):
        found = await cleaned(idle, older_than_seconds=0, dry_run=dry_run)
        assert found[waiting.id].kept_because == "its generation is being made"
    assert (tmp_path / path).is_file()
    assert await known(idle) == {waiting.id}


async def test_what_is_listened_to_keeps_its_row_too(idle: House) -> None:
    made = await completed(idle, seconds=20)
    call = idle.music.StreamAudio(export.StreamAudioRequest(generation_id=made.id), timeout=SECONDS)
    responses = aiter(call)
    await anext(responses)
    for dry_run in (True, False):
        found = await cleaned(idle, keep_newest_bytes=0, dry_run=dry_run)
        assert "is being read" in found[made.id].kept_because
    assert [one async for one in responses][-1].WhichOneof("part") == "end"
    assert await known(idle) == {made.id}
    assert await verified(idle) == {made.id: "INTACT"}


async def test_what_a_generation_in_the_queue_goes_on_from_is_kept(idle: House) -> None:
    source, other, taken = await completed(idle), await completed(idle), await clip(idle)
    render = await idle.music.Render(export.RenderRequest(generation_id=source.id), timeout=SECONDS)
    create = storage.CreateGenerationRequest(
        prompt="techno", model_name="sketch", duration_seconds=1.0, sample_rate_hz=RATE, channels=CHANNELS
    )
    waiting = []
    for source_id in (source.id, taken):
        create.continuation.source_id = source_id
        waiting.append((await idle.storage.CreateGeneration(create, timeout=SECONDS)).generation.id)
    for dry_run in (True, False):
        found = await cleaned(idle, keep_newest_bytes=0, dry_run=dry_run)
        kept = {one for one, response in found.items() if "goes on from it" in response.kept_because}
        assert (kept, set(found) - kept) == ({source.id, taken}, {other.id, render.render_id})
    assert await listed(idle) == {source.id, taken}
    await idle.music.CancelGeneration(storage.CancelGenerationRequest(id=waiting[1]), timeout=SECONDS)
    assert not (await cleaned(idle, keep_newest_bytes=0))[taken].kept_because
    assert await listed(idle) == {source.id}


async def test_a_clip_and_a_render_can_be_deleted_and_a_generation_only_whole(idle: House) -> None:
    made, taken = await completed(idle), await clip(idle)
    render = await idle.music.Render(export.RenderRequest(generation_id=made.id), timeout=SECONDS)
    assert await listed(idle) == {made.id, taken, render.render_id}
    await idle.music.DeleteFile(export.DeleteFileRequest(generation_id=taken), timeout=SECONDS)
    request = export.DeleteFileRequest(generation_id=made.id, render_id=render.render_id)
    await idle.music.DeleteFile(request, timeout=SECONDS)
    assert await listed(idle) == {made.id}
    for generation_id, code, reason in (
        (made.id, "FAILED_PRECONDITION", "NOT_A_CLIP"),
        (taken, "NOT_FOUND", "FILE_NOT_FOUND"),
        ("../x", "INVALID_ARGUMENT", "INVALID_FIELD"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await idle.music.DeleteFile(export.DeleteFileRequest(generation_id=generation_id), timeout=SECONDS)
        assert (raised.value.code().name, read_failure(raised.value).reason) == (code, reason)


async def test_figures_of_the_library(idle: House) -> None:
    made = await completed(idle)
    found = await idle.music.GetLibraryStatistics(export.GetLibraryStatisticsRequest(), timeout=SECONDS)
    assert (found.total_files, found.total_bytes) == (1, made.file_size_bytes)
