"""The picture and the waveform of a generation, as the command line draws them."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from dgx_music.storage.v1 import storage_pb2 as storage
from gateway.cli.commands import inspect
from gateway.cli.display import picture
from gateway.cli.display.console import Console
from gateway.cli.session.command_errors import CommandError
from gateway.cli.session.runner import Session
from tests.support.embedded_services import EmbeddedServices
from tests.support.library_files import RATE, completed


def session_for(services: EmbeddedServices, data_dir: Path) -> Session:
    return Session(services.music, data_dir, is_persistent=False)


async def test_show_prints_waveform_and_writes_picture(
    library_services: EmbeddedServices, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generation = await completed(library_services, seconds=4)
    path = tmp_path / "picture.png"
    picture.require_drawable(path, overwrite=False)
    assert await inspect.show(session_for(library_services, tmp_path), Console(), generation.id, png=path) == 0
    shown = capsys.readouterr().out
    assert re.search(rf"picture +{path}", shown)
    assert re.search("[\u2801-\u28ff]{20}", shown), "no waveform"
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (1280, 960)
    assert list(tmp_path.glob(".*part")) == []
    with pytest.raises(CommandError, match="--force"):
        picture.require_drawable(path, overwrite=False)
    picture.require_drawable(path, overwrite=True)


@pytest.mark.parametrize("seconds", [0.1, 1.0])
async def test_audio_too_short_for_loudness_is_drawn_without_it(
    library_services: EmbeddedServices, tmp_path: Path, seconds: float
) -> None:
    generation = await completed(library_services, seconds=seconds)
    generation.prompt = "a $broken_ prompt\n\u65e5\u672c " + "x" * 500
    path = await picture.write_picture(session_for(library_services, tmp_path), generation, tmp_path / "short.png")
    assert path.stat().st_size > 10_000


async def test_show_of_generation_without_file_omits_waveform(
    library_services: EmbeddedServices, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generation = await completed(library_services)
    (tmp_path / generation.file_path).unlink()
    assert await inspect.show(session_for(library_services, tmp_path), Console(), generation.id, png=None) == 0
    assert "failed to draw the waveform: " in capsys.readouterr().err


async def test_picture_of_pending_generation_is_rejected(library_services: EmbeddedServices, tmp_path: Path) -> None:
    create = storage.CreateGenerationRequest(
        prompt="techno", model_name="sketch", duration_seconds=1.0, sample_rate_hz=RATE, channels=2
    )
    waiting = (await library_services.storage.CreateGeneration(create, timeout=60)).generation
    with pytest.raises(CommandError, match="is pending and has no audio yet"):
        await inspect.show(session_for(library_services, tmp_path), Console(), waiting.id, png=tmp_path / "x.png")


async def test_picture_in_missing_folder_fails(library_services: EmbeddedServices, tmp_path: Path) -> None:
    generation = await completed(library_services)
    with pytest.raises(CommandError, match="failed to write"):
        await picture.write_picture(session_for(library_services, tmp_path), generation, tmp_path / "nowhere" / "x.png")
