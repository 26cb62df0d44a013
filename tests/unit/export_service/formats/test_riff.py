"""The chunks of WAV and RF64 files: whole, in order, and as libsndfile and others parse them."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import wave
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from export_service.dsp.loudness import Loudness
from export_service.dsp.measurement import Measured
from export_service.formats import writer
from export_service.formats.tags import FileTags
from export_service.formats.writer import AudioFile
from service_runtime.audio.output_options import FileFormat

ID = "12345678-9abc-def0-1234-56789abcdef0"
TAGS = FileTags(ID, 1, "dgx-music 0.1", "sketch 1", "hôuse", 124.5, "F# minor", "CC0")
MEASURED = Measured(Loudness(-16.004, -12.34, -14.567, 5.25), -1.006, -1.2, -18.0, 10.0)
WAV = [FileFormat.WAV_PCM_24, FileFormat.WAV_PCM_16, FileFormat.WAV_FLOAT]
RATE = 32_000
BROADCAST_INFO, LOOP_INFO = 0x10F0, 0x10E0
"""libsndfile's commands that get what it parsed."""


@pytest.fixture(params=["RIFF", "RF64"])
def container(request, monkeypatch):
    if request.param == "RF64":
        monkeypatch.setattr(writer, "LARGEST_WAV_BYTES", 1000)
    return request.param


def written(path, format_=FileFormat.WAV_PCM_24, tags=TAGS, measured=MEASURED, frames=RATE, channels=2):
    samples = np.random.default_rng(1).standard_normal((frames, channels)).astype(np.float32) * 0.1
    AudioFile(format_, RATE, channels, frames, tags, 7).write(path, [samples], 0.0, measured)
    return path


def walk(path):
    """All chunks in order, by the 64-bit sizes where there are such; every byte of the file belongs to one."""
    content = path.read_bytes()
    form, riff_size, kind = struct.unpack_from("<4sI4s", content)
    assert kind == b"WAVE"
    position, found, sizes = 12, {}, {}
    while position < len(content):
        name, size = struct.unpack_from("<4sI", content, position)
        if name == b"ds64":
            sizes = dict(
                zip(("riff", b"data", "frames"), struct.unpack_from("<3Q", content, position + 8), strict=True)
            )
        if size == 0xFFFF_FFFF:
            size = sizes[name]
        assert name not in found
        found[name] = content[position + 8 : position + 8 + size]
        assert len(found[name]) == size
        position += 8 + size
        if size % 2:
            assert content[position] == 0, "the pad"
            position += 1
    assert position == len(content)
    assert (sizes["riff"] if form == b"RF64" else riff_size) == len(content) - 8
    if form == b"RF64":
        assert riff_size == 0xFFFF_FFFF
    return form.decode(), found, sizes


@pytest.mark.parametrize("format_", WAV)
@pytest.mark.parametrize("frames", [RATE, 10_001])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_chunk_is_whole_and_what_describes_the_samples_comes_before_them(
    tmp_path, container, format_, frames, channels
):
    path = written(tmp_path / "a.wav", format_, frames=frames, channels=channels)
    form, found, sizes = walk(path)
    assert form == container
    names = [name for name in found if name not in (b"ds64", b"fact", b"PEAK")]
    assert names == [b"fmt ", b"bext", b"acid", b"LIST", b"JUNK", b"data"]
    assert len(found[b"data"]) == frames * channels * {"wav_pcm_24": 3, "wav_pcm_16": 2, "wav_float": 4}[format_]
    assert sizes.get("frames", frames) == frames
    assert not any(found[b"JUNK"])
    assert b"~" not in found[b"LIST"]


def test_bext_has_the_figures_of_the_file(tmp_path, container):
    _, found, _ = walk(written(tmp_path / "a.wav"))
    bext = found[b"bext"]
    assert bext[:256].rstrip(b"\0").decode() == (
        f"AI-generated music; generation={ID}; generator=dgx-music 0.1; model=sketch 1"
    )
    assert bext[256:288].rstrip(b"\0") == b"DGX Music"
    assert bext[288:320] == ID.replace("-", "").encode()
    assert not any(bext[320:338]), "no date: the same file on any day"
    assert struct.unpack_from("<QH", bext, 338) == (0, 2)
    assert struct.unpack_from("<5h", bext, 412) == (-1600, 525, -101, -1234, -1457)
    assert not any(bext[422:602])
    assert bext[602:].rstrip(b"\0") == b"A=PCM,F=32000,W=24,M=stereo,T=dgx-music 0.1\r\n"
    assert len(bext) % 2 == 0


def test_bext_says_which_figures_are_not_known(tmp_path):
    silent = Measured(Loudness(None, None, None, None), None, None, None, 1.0)
    _, found, _ = walk(written(tmp_path / "a.wav", measured=silent))
    assert struct.unpack_from("<5h", found[b"bext"], 412) == (0x7FFF,) * 5
    _, found, _ = walk(written(tmp_path / "b.wav", measured=replace(MEASURED, true_peak_dbtp=-400.0)))
    assert struct.unpack_from("<5h", found[b"bext"], 412) == (-1600, 525, 0x7FFF, -1234, -1457)


def test_libsndfile_parses_bext(tmp_path, container):
    info = parsed(written(tmp_path / "a.wav"), BROADCAST_INFO, 864)
    assert info[:256].startswith(b"AI-generated music; generation=" + ID.encode())
    assert info[256:288].rstrip(b"\0") == b"DGX Music"
    # C's struct has two bytes between text and numbers.
    assert struct.unpack_from("<H64x5h", info, 348) == (2, -1600, 525, -101, -1234, -1457)


@pytest.mark.parametrize(
    ("key", "root", "flags"),
    [("F# minor", 54, 0x0A), ("C major", 48, 0x0A), ("B minor", 59, 0x0A), ("E dorian", 60, 0x08), ("", 60, 0x08)],
)
def test_acid_has_tempo_beats_metre_and_root_note(tmp_path, key, root, flags):
    _, found, _ = walk(written(tmp_path / "a.wav", tags=replace(TAGS, key=key), frames=10 * RATE))
    got = struct.unpack("<IHHfIHHf", found[b"acid"])
    assert got == (flags, root, 0x8000, 0.0, round(10 * 124.5 / 60), 4, 4, 124.5)


def test_libsndfile_parses_acid(tmp_path):
    info = parsed(written(tmp_path / "a.wav", frames=10 * RATE), LOOP_INFO, 44)
    numerator, denominator, _, beats, bpm, root = struct.unpack_from("<hhiifi", info)
    assert (numerator, denominator, beats, bpm, root) == (4, 4, 21, 124.5, 54)


def test_no_acid_chunk_without_a_tempo(tmp_path):
    _, found, _ = walk(written(tmp_path / "a.wav", tags=replace(TAGS, bpm=0.0)))
    assert b"acid" not in found


def test_a_clip_is_not_ours_to_mark(tmp_path):
    path = written(tmp_path / "a.wav", tags=None, measured=None)
    _, found, _ = walk(path)
    assert set(found) == {b"fmt ", b"data"}
    assert AudioFile(FileFormat.WAV_PCM_24, RATE, 2, RATE, None, 7).marks == ()


@pytest.mark.parametrize("format_", [FileFormat.WAV_PCM_24, FileFormat.WAV_PCM_16])
def test_pythons_own_reader_passes_over_the_chunks(tmp_path, format_):
    with wave.open(str(written(tmp_path / "a.wav", format_)), "rb") as file:
        assert file.getnframes() == RATE
        data = file.readframes(RATE)
    assert data == walk(tmp_path / "a.wav")[1][b"data"]


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
@pytest.mark.parametrize("format_", WAV)
def test_ffprobe_finds_tags_figures_and_all_frames(tmp_path, container, format_):
    path = written(tmp_path / "a.wav", format_)
    shown = "stream=duration_ts:format_tags"
    done = subprocess.run(
        ["ffprobe", "-v", "warning", "-show_entries", shown, "-of", "json", path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["streams"] == [{"duration_ts": RATE}]
    tags = found["format"]["tags"]
    assert tags["genre"] == TAGS.genre
    assert tags["comment"] == TAGS.comment
    assert tags["encoded_by"] == "DGX Music"
    assert tags["originator_reference"] == ID.replace("-", "")
    assert tags["coding_history"].strip().startswith("A=PCM,F=32000")


@pytest.mark.skipif(shutil.which("soxi") is None, reason="sox is not installed")
@pytest.mark.parametrize("format_", [FileFormat.WAV_PCM_24, FileFormat.WAV_PCM_16])  # It warns of any float file.
def test_sox_counts_all_frames_without_a_word_of_warning(tmp_path, format_):
    path = written(tmp_path / "a.wav", format_)
    done = subprocess.run(["soxi", "-s", path], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (str(RATE), "")


def parsed(path, command, size):
    """What libsndfile makes of the file, as the struct that its command fills."""
    ffi, library = soundfile._ffi, soundfile._snd
    with soundfile.SoundFile(path) as file:
        assert file.frames > 0
        buffer = ffi.new("char[]", size)
        assert library.sf_command(file._file, command, buffer, size) == 1
        return bytes(ffi.buffer(buffer))
