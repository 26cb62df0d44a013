"""Looking after the files through MusicService: with what storage knows of them."""

from __future__ import annotations

import io
import os
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
import soundfile

from dgx_music.export.v1 import export_pb2 as export
from dgx_music.export.v1.export_pb2 import FileCondition
from dgx_music.pcm import PcmWriter, live_header
from dgx_music.status import read_error_details
from dgx_music.storage.v1 import storage_pb2 as storage
from gateway.cli.display.units import age_of, bytes_of
from gateway.cli.session.command_errors import CommandError
from gateway.rpc import file_verification

if TYPE_CHECKING:
    from .conftest import House

SECONDS = 60.0
RATE, CHANNELS = 32_000, 2
HOUR = 3600.0


async def exported(house: House, generation_id: str, seconds: float = 0.2, attempt: int = 1) -> export.ExportResponse:
    """A file in the library, whatever storage knows of it."""
    samples = np.random.default_rng(1).standard_normal((round(seconds * RATE), CHANNELS)).astype(np.float32) * 0.1
    writer = PcmWriter(CHANNELS)
    header = export.ExportHeader(audio=live_header(generation_id, attempt, RATE, CHANNELS, len(samples)))
    call = house.export.Export(timeout=SECONDS)
    await call.write(export.ExportRequest(header=header))
    for chunk in writer.chunks(samples.tobytes()):
        await call.write(export.ExportRequest(chunk=chunk))
    await call.write(export.ExportRequest(end=writer.end()))
    await call.done_writing()
    return await call


async def completed(house: House, seconds: float = 0.2) -> storage.Generation:
    """A generation with its file, made by the test itself."""
    create = storage.CreateGenerationRequest(
        prompt="techno", model_name="sketch", duration_seconds=seconds, sample_rate_hz=RATE, channels=CHANNELS
    )
    await house.storage.CreateGeneration(create, timeout=SECONDS)
    claim = storage.ClaimGenerationRequest(worker_id="test", model_names=["sketch"], lease_seconds=30, wait_seconds=5)
    claimed = await house.storage.ClaimGeneration(claim, timeout=SECONDS)
    file = await exported(house, claimed.generation.id, seconds)
    done = storage.CompleteGenerationRequest(
        id=claimed.generation.id,
        lease_token=claimed.lease_token,
        file_path=file.file_path,
        file_size_bytes=file.file_size_bytes,
        model_version="1",
        generation_time_seconds=1.0,
    )
    done.metadata.update({"file_sha256": file.file_sha256})
    return (await house.storage.CompleteGeneration(done, timeout=SECONDS)).generation


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


async def clip(house: House) -> str:
    file = io.BytesIO()
    soundfile.write(file, np.zeros((RATE, 1)), RATE, format="WAV")
    call = house.music.ImportClip(timeout=SECONDS)
    await call.write(export.ImportClipRequest(data=file.getvalue()[:65_536]))
    await call.write(export.ImportClipRequest(data=file.getvalue()[65_536:] or b"\0"))
    await call.done_writing()
    return (await call).clip_id


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
    assert list(read_error_details(caught.value).violations) == ["files[1].generation_id"]


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
        assert (raised.value.code().name, read_error_details(raised.value).reason) == (code, reason)


async def test_figures_of_the_library(idle: House) -> None:
    made = await completed(idle)
    found = await idle.music.GetLibraryStatistics(export.GetLibraryStatisticsRequest(), timeout=SECONDS)
    assert (found.total_files, found.total_bytes) == (1, made.file_size_bytes)


def test_ages_and_sizes_as_typed() -> None:
    assert age_of("2w", "--older-than").days == 14
    assert bytes_of("1.5GB", "--keep") == 1_500_000_000
    for text in ("", "30", "d", "-1d", "1y", "999999d"):
        with pytest.raises(CommandError, match="--older-than"):
            age_of(text, "--older-than")
    for text in ("", "5", "GB", "-1GB", "1,5GB", "1KB"):
        with pytest.raises(CommandError, match="--keep"):
            bytes_of(text, "--keep")
