"""Fault 17: ids that are paths, and things in the library that are not its files: links to files and folders outside,
hard links, pipes, folders in place of files and files in place of folders. They are refused or never used, and nothing
outside the library is read, changed or deleted."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import grpc.aio
import pytest

from dgx_music.audio.v1 import audio_pb2
from dgx_music.export.v1 import export_pb2
from tests.support.export_client import (
    TIMEOUT_SECONDS,
    ExportClient,
    build_requests,
    music,
    new_id,
    output_options,
    raises_rpc_error,
    run_export_service,
)

Call = Callable[[], Awaitable[object]]
INVALID_IDS = "../../secret", "/etc/passwd", "a" * 300, "\N{FULLWIDTH FULL STOP}" * 36, "", "..", "C:\\secret"


def calls(client: ExportClient, generation_id: str, render_id: str = "") -> dict[str, Call]:
    """Returns a call of each method that reads or changes the file of a generation, or this render of it."""
    stub = client.stub
    fields = {"generation_id": generation_id, "render_id": render_id}
    download = export_pb2.DownloadRequest(**fields)
    stream = export_pb2.StreamAudioRequest(**fields, level=audio_pb2.AUDIO_LEVEL_FINAL)
    found: dict[str, Call] = {
        "Download": lambda: read_all(stub.Download(download, timeout=TIMEOUT_SECONDS)),
        "StreamAudio": lambda: read_all(stub.StreamAudio(stream, timeout=TIMEOUT_SECONDS)),
        "GetWaveform": lambda: stub.GetWaveform(export_pb2.GetWaveformRequest(**fields), timeout=TIMEOUT_SECONDS),
        "EditTags": lambda: stub.EditTags(export_pb2.EditTagsRequest(**fields, title="A"), timeout=TIMEOUT_SECONDS),
        "DeleteFile": lambda: stub.DeleteFile(export_pb2.DeleteFileRequest(**fields), timeout=TIMEOUT_SECONDS),
    }
    if not render_id:
        found["Render"] = lambda: stub.Render(render_request(generation_id), timeout=TIMEOUT_SECONDS)
    return found


def render_request(generation_id: str, format_: str = "WAV_PCM_24") -> export_pb2.RenderRequest:
    return export_pb2.RenderRequest(generation_id=generation_id, output=output_options(format_))


async def read_all(call: AsyncIterable[object]) -> list[object]:
    return [response async for response in call]


async def list_renders(client: ExportClient, generation_id: str) -> int:
    """Returns how many renders the verification of a generation finds."""
    request = export_pb2.VerifyFilesRequest(files=[export_pb2.ExpectedFile(generation_id=generation_id)])
    return len(await read_all(client.stub.VerifyFiles(request, timeout=TIMEOUT_SECONDS))) - 1


async def list_ids(client: ExportClient) -> set[str]:
    page = await client.stub.ListFiles(export_pb2.ListFilesRequest(page_size=100), timeout=TIMEOUT_SECONDS)
    return {file.generation_id for file in page.files}


async def clean_up(client: ExportClient) -> list[export_pb2.CleanupResponse]:
    request = export_pb2.CleanupRequest(keep_newest_bytes=0)
    return [one async for one in client.stub.Cleanup(request, timeout=TIMEOUT_SECONDS)]


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Returns what is in a folder: path → access rights and content."""
    paths = [path for path in [folder, *folder.rglob("*")] if not path.is_symlink()]
    return {str(path): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"") for path in paths}


async def test_nothing_in_the_library_leads_out_of_it(tmp_path: Path) -> None:
    data, outside = tmp_path / "data", tmp_path / "outside"
    today = data / "outputs" / datetime.now(UTC).strftime("%Y/%m/%d")
    async with run_export_service(data) as client:
        exported = await client.export(new_id(), music(0.2))
        exported_id = Path(exported.file_path).stem
        rendered = await client.stub.Render(render_request(exported_id, "OGG_VORBIS"), timeout=TIMEOUT_SECONDS)
        clip = await client.import_clip((data / exported.file_path).read_bytes())
        content = (data / exported.file_path).read_bytes()
    linked, in_linked_day, pipe, folder, clip_link, not_ours = (new_id() for _ in range(6))
    (outside / "empty").mkdir(parents=True)
    (data / "renders" / exported_id).rename(outside / "renders")
    (outside / f"{in_linked_day}.wav").write_bytes(content)
    (outside / "file.wav").write_bytes(content)
    os.chmod(outside, 0o755)
    (today / f"{linked}.wav").symlink_to(outside / "file.wav")
    (data / "clips" / f"{clip_link}.wav").symlink_to(outside / "file.wav")
    (data / "outputs/2020/01").mkdir(parents=True)
    (data / "outputs/2020/01/02").symlink_to(outside)
    (data / "outputs/2019").symlink_to(outside / "empty")
    os.mkfifo(today / f"{pipe}.wav")
    (today / f"{folder}.wav").mkdir()
    (today / "notes.wav").write_bytes(content)
    for leftovers in ("outputs/.landing", "renders/.landing", "spool"):
        (data / leftovers / f"{not_ours}.1.part").symlink_to(outside / "file.wav")
        (data / leftovers / f"{not_ours}.2.pcm.part").mkdir()
        os.mkfifo(data / leftovers / f"{not_ours}.3.part")
    samples = data / "spool" / f"{exported_id}.1.pcm"
    samples.unlink()
    samples.symlink_to(outside / "file.wav")
    samples.with_suffix(".json").write_bytes(b"{}")
    before = snapshot(outside)

    async with run_export_service(data, group_readable=True) as client:
        for generation_id in (linked, in_linked_day, pipe, folder, clip_link):
            for name, call in calls(client, generation_id).items():
                async with raises_rpc_error("NOT_FOUND"):
                    await call()
                assert snapshot(outside) == before, name
        async with raises_rpc_error("NOT_FOUND"):
            await client.read_audio(exported_id, level=audio_pb2.AUDIO_LEVEL_LIVE)
        assert not samples.with_suffix(".json").exists()
        assert await list_ids(client) == {exported_id, clip.clip_id}
        (data / "renders" / exported_id).symlink_to(outside / "renders")
        for format_ in ("FLAC_16", "OGG_VORBIS"):
            async with raises_rpc_error("UNAVAILABLE", match=f"renders/{exported_id} is a symbolic link"):
                await client.stub.Render(render_request(exported_id, format_), timeout=TIMEOUT_SECONDS)
        for name, call in calls(client, exported_id, rendered.render_id).items():
            async with raises_rpc_error("NOT_FOUND"):
                await call()
            assert snapshot(outside) == before, name
        assert await list_renders(client, exported_id) == 0
        await calls(client, exported_id)["EditTags"]()
        assert snapshot(outside) == before
        # A file that cannot land because of what is in its place.
        async with raises_rpc_error("UNAVAILABLE"):
            await client.export(folder, music(0.2))
        # A link is replaced, and not followed.
        assert (
            await client.export(linked, music(0.2))
        ).file_path == f"outputs/{today.relative_to(data / 'outputs')}/{linked}.wav"
        assert {one.file.generation_id for one in await clean_up(client)} == {exported_id, linked, clip.clip_id}
        assert (today / "notes.wav").read_bytes() == content
        assert not (data / "renders" / exported_id).is_symlink()
        assert snapshot(outside) == before


@pytest.mark.parametrize("kind", ["link", "file"])
async def test_day_folder_that_is_something_else(tmp_path: Path, kind: str) -> None:
    data, outside = tmp_path / "data", tmp_path / "outside"
    outside.mkdir()
    async with run_export_service(data) as client:
        generation_id = new_id()
        day = data / "outputs" / datetime.now(UTC).strftime("%Y/%m/%d")
        day.parent.mkdir(parents=True)
        if kind == "link":
            day.symlink_to(outside)
        else:
            day.write_bytes(b"")
        async with raises_rpc_error("UNAVAILABLE", "LIBRARY_UNAVAILABLE"):
            await client.export(generation_id, music(0.2))
        assert not list(outside.iterdir())
        day.unlink()
        resumed = await client.resume(generation_id, 2)  # The samples were kept.
        assert (data / resumed.file.file_path).is_file()


async def test_library_on_another_disk_by_a_link(tmp_path: Path) -> None:
    """The folders of the data directory may be links, such as to a larger disk."""
    data = tmp_path / "data"
    data.mkdir()
    for name in ("outputs", "renders", "clips", "spool"):
        (tmp_path / "disk" / name).mkdir(parents=True)
        (data / name).symlink_to(tmp_path / "disk" / name)
    generation_id = new_id()
    async with run_export_service(data) as client:
        await client.export(generation_id, music(0.2))
    async with run_export_service(data) as client:
        assert await list_ids(client) == {generation_id}
        for name, call in calls(client, generation_id).items():
            if name != "DeleteFile":
                await call()
        await calls(client, generation_id)["DeleteFile"]()
        assert not [path for path in (tmp_path / "disk").rglob("*.*") if path.is_file()]


async def test_other_names_of_a_file_keep_its_content(tmp_path: Path) -> None:
    """Hard links, as backups and deduplication make them."""
    async with run_export_service(tmp_path / "data") as client:
        generation_id = new_id()
        exported = await client.export(generation_id, music(0.2))
        copy = tmp_path / "copy.wav"
        copy.hardlink_to(client.data_dir / exported.file_path)
        content = copy.read_bytes()
        for name in ("EditTags", "Render", "DeleteFile"):
            await calls(client, generation_id)[name]()
        await client.export(generation_id, music(0.3), attempt=2)
        assert copy.read_bytes() == content


async def test_id_that_is_a_path_is_rejected_by_every_method(tmp_path: Path) -> None:
    async with run_export_service(tmp_path / "data") as client:
        for invalid in INVALID_IDS:
            for name, call in calls(client, invalid).items():
                async with raises_rpc_error("INVALID_ARGUMENT", field="generation_id"):
                    await call()
                assert name
            async with raises_rpc_error("INVALID_ARGUMENT", field="header.audio.generation_id"):
                await client.send(build_requests(invalid, music(0.1))[:1], close=False)
            async with raises_rpc_error("INVALID_ARGUMENT"):
                await client.resume(invalid, 1)
            render_id = {"generation_id": new_id(), "render_id": invalid or "."}
            for method, request in (
                (client.stub.DeleteFile, export_pb2.DeleteFileRequest(**render_id)),
                (client.stub.GetWaveform, export_pb2.GetWaveformRequest(**render_id)),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await method(request, timeout=TIMEOUT_SECONDS)
                assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert client.files() == set()
