"""Waveform, loudness and spectrogram of a generation, as the CLI draws them."""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from dgx_music.storage.v1 import storage_pb2 as storage
from gateway.cli.commands import inspect
from gateway.cli.display import picture
from gateway.cli.display.console import Screen
from gateway.cli.display.spectrogram import LOWEST_HZ, MOST_COLUMNS, ROWS, Spectrogram
from gateway.cli.session.command_errors import CommandError
from gateway.cli.session.runner import Session

from .test_library import completed

if TYPE_CHECKING:
    from .conftest import House

RATE = 32_000


def sine(hertz: float, seconds: float, channels: int = 2, level: float = 1.0) -> picture.Samples:
    wave = level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def of(samples: picture.Samples, piece: int) -> Spectrogram:
    found = Spectrogram(RATE, samples.shape[1], len(samples))
    for start in range(0, len(samples), piece):
        found.feed(samples[start : start + piece])
    return found


@pytest.mark.parametrize("hertz", [100.0, 1000.0, 12_000.0])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_sine_stands_at_its_frequency_and_level(hertz: float, channels: int) -> None:
    found = of(sine(hertz, 2, channels, level=0.1), 10_000)
    column = found.decibels()[:, found.columns // 2]
    loudest = int(column.argmax())
    bin_rows = found.row_of(hertz + RATE / 2048) - found.row_of(hertz)  # How far apart two of the transform's lie.
    assert abs(loudest - found.row_of(hertz)) <= max(1, bin_rows)
    assert column[loudest] == pytest.approx(-20, abs=1.5)  # Between two of the transform's it is 1.4 dB less.


def test_time_goes_from_left_to_right() -> None:
    silence = np.zeros((RATE, 2), dtype=np.float32)
    found = of(np.concatenate([sine(1000, 1), silence]), 4096)
    row = found.decibels()[int(found.row_of(1000)) :][:2].max(axis=0)
    assert row[: found.columns // 2 - 1].min() > -2
    assert np.isneginf(row[found.columns // 2 + 2 :]).all()


def test_a_spectrogram_is_the_same_however_it_is_fed() -> None:
    noise = np.random.default_rng(1).standard_normal((5 * RATE, 2)).astype(np.float32)
    np.testing.assert_allclose(of(noise, 777).decibels(), of(noise, len(noise)).decibels(), rtol=1e-6)


def test_its_size_is_the_picture_s() -> None:
    short, long = of(sine(440, 1), 50_000), of(sine(440, 60), 50_000)
    assert short.decibels().shape == (ROWS, short.columns)
    assert long.columns == MOST_COLUMNS
    assert of(sine(440, 0.01), 50).decibels().shape == (ROWS, 1), "less than a window"
    assert long.frequencies(np.array([0, ROWS])).tolist() == pytest.approx([LOWEST_HZ, RATE / 2])


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


def test_without_matplotlib_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(CommandError, match=r"pip install 'dgx-music\[pictures\]'"):
        picture.require_drawable(tmp_path / "x.png", overwrite=False)
