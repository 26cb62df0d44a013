"""Damaged MPEG-4 files; test_writer reads whole ones."""

from __future__ import annotations

import subprocess

import imageio_ffmpeg
import numpy as np
import pytest

from dgx_music.errors import Unavailable
from export_service.formats.m4a_file import DamagedFileError, M4aReader, is_mpeg4
from export_service.formats.reader import open_sequential
from export_service.formats.writer import AudioFile
from export_service.library.inventory import read_audio_info
from export_service.library.store import read_audio_properties, translate_file_errors
from service_runtime.audio.output_options import FileFormat
from tests.support import signals

RATE = 32_000


@pytest.fixture
def path(tmp_path):
    samples = signals.music(RATE, 1)
    AudioFile(FileFormat.M4A_AAC, RATE, 2, len(samples), None, 1).write(tmp_path / "a.m4a", [samples], 0.0)
    return tmp_path / "a.m4a"


def test_reads_in_pieces_of_any_size(path):
    with open_sequential(path) as file:
        whole = file.read(RATE)
    with path.open("rb") as raw, M4aReader(raw.fileno()) as file:
        block, pieces = np.empty((777, 2), np.float32), [file.read(1), file.read(5_000)]
        while len(piece := file.read(out=block)):
            pieces.append(piece.copy())
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    assert raw.closed


def test_truncated_file_is_damaged(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert is_mpeg4(path)
    with pytest.raises(DamagedFileError):
        M4aReader(path)
    assert read_audio_info(path) is None
    with pytest.raises(Unavailable, match="is damaged and can't be read: Invalid data"), translate_file_errors(path):
        read_audio_properties(path)


def test_damaged_samples_are_reported(path):
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 2_000
    content[start : start + 4_000] = b"\xff" * 4_000
    path.write_bytes(content)
    with open_sequential(path) as file, pytest.raises(DamagedFileError):
        file.read(RATE)


def test_file_without_audio_is_damaged(tmp_path):
    path = tmp_path / "film.mp4"
    source = ("-f", "lavfi", "-i", "color=size=16x16:duration=0.1", "-codec:v", "mpeg4")
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *source, path], check=True)
    with pytest.raises(DamagedFileError, match="no audio track"):
        M4aReader(path)
