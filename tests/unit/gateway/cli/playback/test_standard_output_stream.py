"""Samples on standard output: the header, as other programs read it, and a reader that is slow or gone."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile

from gateway.cli.playback.audio_sink import PcmFormat
from gateway.cli.playback.standard_output_stream import StandardOutputStream, wav_header
from gateway.cli.session.command_errors import CommandError


@contextmanager
def standard_output(file: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with open(file, "wb", closefd=False) as binary, io.TextIOWrapper(binary) as text:
        monkeypatch.setattr(sys, "stdout", text)
        yield
        monkeypatch.undo()


@pytest.mark.parametrize("channels", [1, 2])
def test_header_with_known_length_is_read_by_others_without_a_warning(tmp_path: Path, channels: int) -> None:
    samples = np.random.default_rng(1).standard_normal((3000, channels)).astype("<f4")
    stream = wav_header(PcmFormat(44100, channels, len(samples))) + samples.tobytes()
    assert read_by_ffmpeg(stream) == (samples.tobytes(), "")
    file = tmp_path / "a.wav"
    file.write_bytes(stream)
    read, rate = soundfile.read(file, dtype="float32", always_2d=True)
    assert rate == 44100
    assert np.array_equal(read, samples)


def test_stream_of_unknown_length_is_read_to_its_end() -> None:
    samples = np.random.default_rng(1).standard_normal((50_000, 2)).astype("<f4").tobytes()
    assert read_by_ffmpeg(wav_header(PcmFormat(32000, 2, 0)) + samples)[0] == samples


def test_length_that_wav_has_no_number_for_is_its_largest() -> None:
    header = wav_header(PcmFormat(192_000, 2, 192_000 * 3600))
    assert header[4:8] == header[-4:] == b"\xff\xff\xff\xff"


def read_by_ffmpeg(stream: bytes) -> tuple[bytes, str]:
    """Returns the samples, and what ffmpeg warns of."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-v", "warning", "-i", "-", "-f", "f32le", "-"]
    done = subprocess.run(command, input=stream, capture_output=True, check=True)
    return done.stdout, done.stderr.decode()


async def test_write_can_be_cancelled_if_the_reader_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with standard_output(writer, monkeypatch):
        writing = asyncio.create_task(StandardOutputStream(print).write(bytes(10 << 20)))
        received = await asyncio.to_thread(os.read, reader, 1)
        assert received == b"\0"
        assert not writing.done()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(writing, 60)
    os.close(reader)
    os.close(writer)


async def test_file_gets_all_and_raw_has_no_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notices: list[str] = []
    file = tmp_path / "raw"
    with file.open("wb") as output, standard_output(output.fileno(), monkeypatch):
        stream = StandardOutputStream(notices.append, is_raw=True)
        await stream.open(PcmFormat(8000, 1, 10))
        await stream.write(b"abcd" * 10_000)
        await stream.finish()
        stream.stop()
    assert file.read_bytes() == b"abcd" * 10_000
    assert notices == [
        "raw: float32 little-endian, 8000 Hz, 1 channels; e.g. ffplay -f f32le -ar 8000 -ch_layout mono -"
    ]


def test_terminal_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    with standard_output(theirs, monkeypatch), pytest.raises(CommandError, match="is a terminal"):
        StandardOutputStream(print)
    os.close(ours)
    os.close(theirs)
