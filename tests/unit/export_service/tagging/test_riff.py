"""The chunks of WAV and RF64 files: complete, in order, and readable by libsndfile and other programs."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import wave
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from export_service.dsp.loudness import Loudness
from export_service.dsp.measurement import LoudnessMeasurement
from export_service.formats import writer
from export_service.formats.writer import AudioFile
from export_service.tagging.tags import FileTags
from service_runtime.audio.output_options import FileFormat

ID = "12345678-9abc-def0-1234-56789abcdef0"
TAGS = FileTags(ID, 1, "dgx-music 0.1", "sketch 1", "hôuse", 124.5, "F# minor", "CC0")
MEASUREMENT = LoudnessMeasurement(Loudness(-16.004, -12.34, -14.567, 5.25), -1.006, -1.2, -18.0, 10.0)
WAV = [FileFormat.WAV_PCM_24, FileFormat.WAV_PCM_16, FileFormat.WAV_FLOAT]
RATE = 32_000
BROADCAST_INFO, LOOP_INFO = 0x10F0, 0x10E0
"""libsndfile commands that return what it parsed."""


@pytest.fixture(params=["RIFF", "RF64"])
def container(request, monkeypatch):
    if request.param == "RF64":
        monkeypatch.setattr(writer, "MAX_WAV_BYTES", 1000)
    return request.param


def write_wav(path, format_=FileFormat.WAV_PCM_24, tags=TAGS, measurement=MEASUREMENT, frames=RATE, channels=2):
    samples = np.random.default_rng(1).standard_normal((frames, channels)).astype(np.float32) * 0.1
    AudioFile(format_, RATE, channels, frames, tags, 7).write(path, [samples], 0.0, measurement)
    return path


def parse_chunks(path):
    """Returns all chunks in order, using the 64-bit sizes if there are any, and checks that they cover the file."""
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
        name = b"adtl" if content[position + 8 : position + 12] == b"adtl" else name
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
def test_chunks_are_complete_and_metadata_precedes_samples(tmp_path, container, format_, frames, channels):
    path = write_wav(tmp_path / "a.wav", format_, frames=frames, channels=channels)
    form, found, sizes = parse_chunks(path)
    assert form == container
    names = [name for name in found if name not in (b"ds64", b"fact", b"PEAK")]
    assert names == [b"fmt ", b"bext", b"acid", b"CSET", b"LIST", b"id3 ", b"JUNK", b"data"]
    assert len(found[b"data"]) == frames * channels * {"wav_pcm_24": 3, "wav_pcm_16": 2, "wav_float": 4}[format_]
    assert sizes.get("frames", frames) == frames
    assert not any(found[b"JUNK"])
    assert b"~" not in found[b"LIST"]


def test_bext_contains_the_loudness_figures(tmp_path, container):
    _, found, _ = parse_chunks(write_wav(tmp_path / "a.wav"))
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


def test_bext_marks_unknown_figures(tmp_path):
    silent = LoudnessMeasurement(Loudness(None, None, None, None), None, None, None, 1.0)
    _, found, _ = parse_chunks(write_wav(tmp_path / "a.wav", measurement=silent))
    assert struct.unpack_from("<5h", found[b"bext"], 412) == (0x7FFF,) * 5
    _, found, _ = parse_chunks(write_wav(tmp_path / "b.wav", measurement=replace(MEASUREMENT, true_peak_dbtp=-400.0)))
    assert struct.unpack_from("<5h", found[b"bext"], 412) == (-1600, 525, 0x7FFF, -1234, -1457)


def test_libsndfile_parses_bext(tmp_path, container):
    info = parse_with_libsndfile(write_wav(tmp_path / "a.wav"), BROADCAST_INFO, 864)
    assert info[:256].startswith(b"AI-generated music; generation=" + ID.encode())
    assert info[256:288].rstrip(b"\0") == b"DGX Music"
    # The C struct has two padding bytes between text and numbers.
    assert struct.unpack_from("<H64x5h", info, 348) == (2, -1600, 525, -101, -1234, -1457)


@pytest.mark.parametrize(
    ("key", "root", "flags"),
    [("F# minor", 54, 0x0A), ("C major", 48, 0x0A), ("B minor", 59, 0x0A), ("E dorian", 60, 0x08), ("", 60, 0x08)],
)
def test_acid_contains_tempo_beats_metre_and_root_note(tmp_path, key, root, flags):
    _, found, _ = parse_chunks(write_wav(tmp_path / "a.wav", tags=replace(TAGS, key=key), frames=10 * RATE))
    got = struct.unpack("<IHHfIHHf", found[b"acid"])
    assert got == (flags, root, 0x8000, 0.0, round(10 * 124.5 / 60), 4, 4, 124.5)


def test_libsndfile_parses_acid(tmp_path):
    info = parse_with_libsndfile(write_wav(tmp_path / "a.wav", frames=10 * RATE), LOOP_INFO, 44)
    numerator, denominator, _, beats, bpm, root = struct.unpack_from("<hhiifi", info)
    assert (numerator, denominator, beats, bpm, root) == (4, 4, 21, 124.5, 54)


def test_acid_is_absent_without_tempo(tmp_path):
    _, found, _ = parse_chunks(write_wav(tmp_path / "a.wav", tags=replace(TAGS, bpm=0.0)))
    assert b"acid" not in found


def test_clip_has_no_metadata_chunks(tmp_path):
    path = write_wav(tmp_path / "a.wav", tags=None, measurement=None)
    _, found, _ = parse_chunks(path)
    assert set(found) == {b"fmt ", b"data"}
    assert AudioFile(FileFormat.WAV_PCM_24, RATE, 2, RATE, None, 7).disclosures == ()


@pytest.mark.parametrize("format_", [FileFormat.WAV_PCM_24, FileFormat.WAV_PCM_16])
def test_wave_module_skips_metadata_chunks(tmp_path, format_):
    with wave.open(str(write_wav(tmp_path / "a.wav", format_)), "rb") as file:
        assert file.getnframes() == RATE
        data = file.readframes(RATE)
    assert data == parse_chunks(tmp_path / "a.wav")[1][b"data"]


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
@pytest.mark.parametrize("format_", WAV)
def test_ffprobe_reads_tags_and_all_frames(tmp_path, container, format_):
    path = write_wav(tmp_path / "a.wav", format_)
    shown = "stream=duration_ts:format_tags"
    done = subprocess.run(
        ["ffprobe", "-v", "warning", "-show_entries", shown, "-of", "json", path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.sub(r".*Discarding ID3 tags because more suitable tags were found.\n", "", done.stderr) == ""
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
def test_sox_counts_all_frames_without_warnings(tmp_path, format_):
    path = write_wav(tmp_path / "a.wav", format_)
    done = subprocess.run(["soxi", "-s", path], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (str(RATE), "")


def parse_with_libsndfile(path, command, size):
    """Returns the struct that a libsndfile command fills after parsing the file."""
    ffi, library = soundfile._ffi, soundfile._snd
    with soundfile.SoundFile(path) as file:
        assert file.frames > 0
        buffer = ffi.new("char[]", size)
        assert library.sf_command(file._file, command, buffer, size) == 1
        return bytes(ffi.buffer(buffer))
