"""Fault 17: files of the library that the service may not read, such as another account's. Who asks for one is told so;
the service starts, and serves every other file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dgx_music.audio.v1 import audio_pb2
from dgx_music.export.v1 import export_pb2
from tests.support.export_client import (
    TIMEOUT_SECONDS,
    ExportClient,
    music,
    new_id,
    output_options,
    raises_rpc_error,
    run_export_service,
)
from tests.support.export_servers import run_export_process
from tests.support.failpoints import armed

NOBODY = 65_534
WITHOUT_PRIVILEGES = "setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner,-chown"
"""As root, the access rights of files would not count."""


@pytest.fixture
def prefix() -> tuple[str, ...]:
    if os.geteuid():
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root needs setpriv (util-linux) to be refused a file")
    return WITHOUT_PRIVILEGES


def forbid(path: Path) -> None:
    """Gives the file or folder to another account, or where that takes privileges, away."""
    path.chmod(0)
    if not os.geteuid():
        os.chown(path, NOBODY, NOBODY)


def readers(client: ExportClient, generation_id: str) -> dict[str, Callable[[], Awaitable[object]]]:
    stub, fields = client.stub, {"generation_id": generation_id}
    render = export_pb2.RenderRequest(**fields, output=output_options("FLAC_16"))
    return {
        "Download": lambda: client.download(generation_id),
        "StreamAudio": lambda: client.read_audio(generation_id, level=audio_pb2.AUDIO_LEVEL_FINAL),
        "GetWaveform": lambda: stub.GetWaveform(export_pb2.GetWaveformRequest(**fields), timeout=TIMEOUT_SECONDS),
        "GetLoudnessCurve": lambda: stub.GetLoudnessCurve(
            export_pb2.GetLoudnessCurveRequest(**fields), timeout=TIMEOUT_SECONDS
        ),
        "Render": lambda: stub.Render(render, timeout=TIMEOUT_SECONDS),
        "EditTags": lambda: stub.EditTags(export_pb2.EditTagsRequest(**fields, title="A"), timeout=TIMEOUT_SECONDS),
    }


@pytest.mark.slow
async def test_files_that_may_not_be_read(tmp_path: Path, prefix: tuple[str, ...]) -> None:
    intact, unreadable, clip_id, rendered, undescribed, unsampled = (new_id() for _ in range(6))
    async with run_export_service(tmp_path) as client:
        await client.export(intact, music(0.2))
        forbidden = [tmp_path / (await client.export(unreadable, music(0.2))).file_path]
        clip = await client.import_clip(forbidden[0].read_bytes())
        clip_id = clip.clip_id
        await client.export(rendered, music(0.2))
        render = await readers(client, rendered)["Render"]()
        assert isinstance(render, export_pb2.RenderResponse)
        with armed("export.before_rename:EIO"):
            for generation_id in (undescribed, unsampled):
                async with raises_rpc_error("UNAVAILABLE"):
                    await client.export(generation_id, music(0.2))
    render_path = tmp_path / render.file.file_path
    other_day, leftover = tmp_path / "outputs/2020/01/02", tmp_path / "renders/.landing" / f"{new_id()}.part"
    for folder in (other_day, leftover):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    staged = tmp_path / "renders/.landing" / f"{render.render_id}.part"
    staged.touch()
    forbidden += [
        *(path for path in (tmp_path / "clips").rglob(f"{clip_id}.*")),
        render_path.with_suffix(".json"),
        tmp_path / f"spool/{undescribed}.1.json",
        tmp_path / f"spool/{unsampled}.1.pcm.part",
        tmp_path / f"spool/{unreadable}.1.pcm",
        other_day,
        leftover,
        staged,
    ]
    for path in forbidden:
        forbid(path)
    async with run_export_process(tmp_path, prefix=prefix) as (_, client):
        for generation_id in (unreadable, clip_id):
            for name, call in readers(client, generation_id).items():
                if generation_id != clip_id or name not in ("Render", "EditTags"):
                    async with raises_rpc_error("UNAVAILABLE", "LIBRARY_UNAVAILABLE", match="Permission denied"):
                        await call()
        async with raises_rpc_error("NOT_FOUND", "RECEIVED_AUDIO_NOT_FOUND"):
            await client.resume(undescribed, 2)
        async with raises_rpc_error("UNAVAILABLE", "LIBRARY_UNAVAILABLE", match="Permission denied"):
            await client.resume(unsampled, 2)
        for call in readers(client, intact).values():
            await call()
        page = await client.stub.ListFiles(export_pb2.ListFilesRequest(), timeout=TIMEOUT_SECONDS)
        assert {file.generation_id for file in page.files} >= {intact, unreadable, rendered, clip_id}
        await client.export(unreadable, music(0.2), attempt=2)
        for call in readers(client, unreadable).values():
            await call()
    other_day.chmod(0o700)  # So that pytest can delete it.
    leftover.exists() and leftover.chmod(0o700)
