"""The picture and the waveform of a generation, as the command line draws them."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from dgx_music.storage.v1 import storage_pb2 as storage
from gateway.cli.commands import inspect
from gateway.cli.display import picture
from gateway.cli.display.console import Screen
from gateway.cli.session.command_errors import CommandError
from gateway.cli.session.runner import Session
from tests.support.embedded_services import House
from tests.support.library_files import RATE, completed


def session(house: House, data_dir: Path) -> Session:
    return Session(house.music, data_dir, lasting=False, notice=print)


async def test_a_picture_and_the_waveform_of_a_generation(
    idle: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = await completed(idle, seconds=4)
    path = tmp_path / "made.png"
    picture.require_drawable(path, overwrite=False)
    assert await inspect.show(session(idle, tmp_path), Screen(), made.id, png=path) == 0
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
async def test_what_is_too_short_for_a_loudness_is_drawn_without(idle: House, tmp_path: Path, seconds: float) -> None:
    made = await completed(idle, seconds=seconds)
    made.prompt = "a $broken_ prompt\n\u65e5\u672c " + "x" * 500
    path = await picture.draw(session(idle, tmp_path), made, tmp_path / "short.png")
    assert path.stat().st_size > 10_000


async def test_a_generation_whose_file_is_gone_is_shown_all_the_same(
    idle: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = await completed(idle)
    (tmp_path / made.file_path).unlink()
    assert await inspect.show(session(idle, tmp_path), Screen(), made.id, png=None) == 0
    assert "can't be drawn: there is no file" in capsys.readouterr().err


async def test_only_what_is_completed_is_drawn(idle: House, tmp_path: Path) -> None:
    create = storage.CreateGenerationRequest(
        prompt="techno", model_name="sketch", duration_seconds=1.0, sample_rate_hz=RATE, channels=2
    )
    waiting = (await idle.storage.CreateGeneration(create, timeout=60)).generation
    with pytest.raises(CommandError, match="is pending: there is no audio"):
        await inspect.show(session(idle, tmp_path), Screen(), waiting.id, png=tmp_path / "x.png")


async def test_a_folder_that_goes_is_told(idle: House, tmp_path: Path) -> None:
    made = await completed(idle)
    with pytest.raises(CommandError, match="can't write"):
        await picture.draw(session(idle, tmp_path), made, tmp_path / "nowhere" / "x.png")
