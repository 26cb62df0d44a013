"""Written files, as other programs read them."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import wave
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from dgx_music.errors import FailedPrecondition, InvalidArgument
from export_service.formats import writer
from export_service.formats.codecs import CODECS
from export_service.formats.reader import open_sequential
from export_service.formats.writer import RESERVING_CONTAINERS, AudioFile, build_quantizer
from export_service.retagging.tag_replacement import write_with_tags
from export_service.tagging import ogg
from export_service.tagging.containers import SampleLayout
from export_service.tagging.tags import FileTags
from service_runtime.audio.output_options import SAMPLE_RATES_HZ, FileFormat
from tests.support import ffmpeg_decoder, foreign_files, signals

TAGS = FileTags("12345678-9abc-def0-1234-56789abcdef0", 1, "dgx-music 0.1", "sketch 1", "house", 124.5, "C minor")
INTEGER = [format_ for format_, codec in CODECS.items() if codec.bits]
FLOAT = [format_ for format_, codec in CODECS.items() if not codec.bits and not codec.is_lossy]
LOSSY = [format_ for format_, codec in CODECS.items() if codec.is_lossy]
DISK_FORMATS = [
    *(FileFormat.WAV_PCM_24, FileFormat.FLAC_24, FileFormat.OGG_VORBIS, FileFormat.MP3),
    *(FileFormat.AIFF_PCM_24, FileFormat.CAF_FLOAT, FileFormat.W64_PCM_24, FileFormat.M4A_AAC),
]
HARMLESS_WARNINGS = (
    "Discarding ID3 tags because more suitable tags were found.",
    "Estimating duration from bitrate, this may be inaccurate",
)
"""What ffprobe says about a file with several tags, and about every CAF and W64 file that libsndfile writes."""
PIPEABLE = [format_ for format_, codec in CODECS.items() if codec.container != "W64"]
"""Formats that every version of ffmpeg reads from a pipe. FFmpeg 9 reads no W64 file with a summary list there."""
RESERVED = [format_ for format_, codec in CODECS.items() if codec.container in RESERVING_CONTAINERS]
"""Formats in whose files libsndfile reserves space for the tags."""


def write_file(path, samples, format_=FileFormat.WAV_PCM_24, gain_db=0.0, seed=7, sizes=(10_000,), rate=32_000):
    blocks, start = [], 0
    while start < len(samples):
        for size in sizes:
            blocks.append(samples[start : start + size])
            start += size
    AudioFile(format_, rate, samples.shape[1], len(samples), TAGS, seed).write(path, blocks, gain_db)
    return path


def chunks(path):
    """RIFF chunks in order: name → (where its content begins, the size that stands there)."""
    content, found, position = path.read_bytes(), {}, 12
    while position + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, position)
        found[name] = (position + 8, size)
        position += 8 + (size + size % 2 if size != 0xFFFF_FFFF else len(content))
    return content, found


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("format_", [format_ for format_ in INTEGER if CODECS[format_].bits > 16])
def test_samples_are_rounded_to_nearest(tmp_path, channels, format_):
    samples, bits = signals.music(32_000, 1, channels), CODECS[format_].bits
    path = write_file(tmp_path / "a", samples, format_, gain_db=-3.7)
    read, rate = ffmpeg_decoder.decode(path, "s32le")
    assert rate == 32_000
    expected = np.rint(samples.astype(np.float64) * 10 ** (-3.7 / 20) * 2 ** (bits - 1)).astype(np.int32) << (32 - bits)
    np.testing.assert_array_equal(read, expected)
    np.testing.assert_array_equal(soundfile.read(path, dtype="int32", always_2d=True)[0], expected)


@pytest.mark.parametrize("format_", PIPEABLE)
def test_file_can_be_read_from_a_pipe(tmp_path, format_):
    samples = signals.music(48_000, 0.2)
    short, long = TAGS, replace(TAGS, prompt="x" * 2000)
    path, edited = tmp_path / "written", tmp_path / "edited"
    for tags, other in ((short, long), (long, short)):
        AudioFile(format_, 48_000, 2, len(samples), tags, 7).write(path, [samples], -1.0)
        with path.open("rb") as source:
            write_with_tags(source, edited, CODECS[format_].container, other, SampleLayout(48_000, 2, 0, len(samples)))
        expected = foreign_files.decode(path.read_bytes())
        assert len(expected) == len(samples)
        for file in (path, edited):
            piped = foreign_files.ffmpeg("-xerror", "-i", "-", "-f", "f32le", stdin=file.read_bytes())
            np.testing.assert_array_equal(np.frombuffer(piped, "<f4").reshape(-1, 2), expected)
            file.unlink()


@pytest.mark.parametrize("format_", FLOAT)
def test_float_samples_are_unchanged(tmp_path, format_):
    samples = signals.music(32_000, 1) * np.float32(3)
    path = write_file(tmp_path / "a", samples, format_)
    np.testing.assert_array_equal(soundfile.read(path, dtype="float32")[0], samples)
    np.testing.assert_array_equal(ffmpeg_decoder.decode(path)[0], samples)


@pytest.mark.parametrize("format_", LOSSY)
@pytest.mark.parametrize("channels", [1, 2])
def test_lossy_file_keeps_frame_count_and_waveform(tmp_path, format_, channels):
    samples = signals.music(48_000, 2, channels)
    path = write_file(tmp_path / "a", samples, format_, rate=48_000)
    read, rate = ffmpeg_decoder.decode(path)
    with open_sequential(path) as file:
        np.testing.assert_allclose(file.read(len(samples)), read, atol=1e-3)
    assert (rate, read.shape) == (48_000, samples.shape)
    delays = range(-50, 51)
    alike = [(samples[100:-100, 0] * np.roll(read[:, 0], -delay)[100:-100]).sum() for delay in delays]
    assert delays[int(np.argmax(alike))] == 0
    assert max(alike) == pytest.approx((samples[100:-100, 0] ** 2).sum(), rel=0.1)


@pytest.mark.parametrize("format_", FileFormat)
def test_every_supported_sample_rate_is_written(tmp_path, format_):
    samples = signals.music(8_000, 0.2)
    for rate in SAMPLE_RATES_HZ.get(format_, (8_000, 12_345, 44_100, 192_000)):
        with open_sequential(write_file(tmp_path / f"{rate}", samples, format_, rate=rate)) as read:
            assert (read.samplerate, read.frames, read.channels) == (rate, len(samples), 2)
            assert len(read.read(2 * len(samples))) == len(samples)


@pytest.mark.parametrize("frames", [1, 1023, 1024, 1025, 20_000])
@pytest.mark.parametrize("rate", [8_000, 44_100, 96_000])
def test_aac_file_has_exactly_the_frames_that_were_written(tmp_path, frames, rate):
    path = write_file(tmp_path / "a", signals.music(rate, 3)[:frames], FileFormat.M4A_AAC, rate=rate)
    assert len(ffmpeg_decoder.decode(path)[0]) == frames
    with open_sequential(path) as file:
        assert (file.frames, len(file.read(30_000))) == (frames, frames)
        assert len(file.read(1)) == 0


@pytest.mark.parametrize(
    ("format_", "rate", "bit_rate", "tolerance"),
    [
        (FileFormat.MP3, 44_100, 320, 0.02),
        (FileFormat.MP3, 48_000, 32, 0.2),
        (FileFormat.MP3, 22_050, 144, 0.02),
        (FileFormat.MP3, 8_000, 8, 0.3),
        (FileFormat.OGG_VORBIS, 48_000, 96, 0.2),
        (FileFormat.OGG_VORBIS, 22_050, 150, 0.2),
        (FileFormat.OGG_OPUS, 48_000, 24, 0.2),
        (FileFormat.OGG_OPUS, 48_000, 510, 0.1),
        (FileFormat.M4A_AAC, 44_100, 96, 0.1),
        (FileFormat.M4A_AAC, 48_000, 256, 0.1),
    ],
)
def test_bit_rate_is_that_of_the_file(tmp_path, format_, rate, bit_rate, tolerance):
    samples = signals.noise(rate, 6)
    path = tmp_path / "a"
    AudioFile(format_, rate, 2, len(samples), None, 7, bit_rate_kbps=bit_rate).write(path, [samples], 0.0)
    assert path.stat().st_size * 8 / 6 / 1000 == pytest.approx(bit_rate, rel=tolerance)
    with open_sequential(path) as file:
        assert file.frames == len(ffmpeg_decoder.decode(path)[0]) == len(samples)


@pytest.mark.parametrize("format_", [FileFormat.MP3, FileFormat.OGG_VORBIS, FileFormat.OGG_OPUS])
def test_higher_quality_gives_larger_file(tmp_path, format_):
    samples, sizes = signals.music(48_000, 2), []
    for quality in (0.0, 0.5, 5.0, 10.0):
        path = tmp_path / f"{quality}"
        AudioFile(format_, 48_000, 2, len(samples), None, 7, quality=quality).write(path, [samples], 0.0)
        sizes.append(path.stat().st_size)
    assert sizes == sorted(set(sizes))
    default = replace(AudioFile(format_, 48_000, 2, len(samples), None, 7), quality=CODECS[format_].default_quality)
    default.write(tmp_path / "named", [samples], 0.0)
    replace(default, quality=None).write(tmp_path / "default", [samples], 0.0)
    assert (tmp_path / "named").read_bytes() == (tmp_path / "default").read_bytes()


def test_aac_without_pyav_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(FailedPrecondition, match=r"M4A_AAC requires the m4a extra .*pip install 'dgx-music\[m4a\]'"):
        write_file(tmp_path / "a", signals.music(48_000, 0.1), FileFormat.M4A_AAC, rate=48_000)


def test_aiff_of_4_gib_is_rejected_before_it_is_written(tmp_path):
    with pytest.raises(InvalidArgument, match="AIFF_FLOAT holds less than 4 GiB"):
        AudioFile(FileFormat.AIFF_FLOAT, 48_000, 2, 2**29, None, 7).write(tmp_path / "a", [], 0.0)
    assert list(tmp_path.iterdir()) == []


def test_pcm_16_has_triangular_dither():
    samples = np.full((200_000, 2), 0.25 / 2**15, dtype=np.float32)
    steps = build_quantizer(16, 0.0, 1)(samples) >> 16
    # The mean keeps what is below one step; the error's variance is 1/4 for any level, as TPDF promises.
    assert steps.mean() == pytest.approx(0.25, abs=0.005)
    assert (steps - 0.25).var() == pytest.approx(0.25, abs=0.005)
    assert set(np.unique(steps)) <= {-1, 0, 1}
    assert abs(np.corrcoef(steps.T)[0, 1]) < 0.01


@pytest.mark.parametrize("format_", [format_ for format_ in INTEGER if CODECS[format_].bits == 16])
def test_dither_does_not_depend_on_block_sizes(tmp_path, format_):
    samples = signals.music(32_000, 1)
    one = write_file(tmp_path / "a", samples, format_)
    other = write_file(tmp_path / "b", samples, format_, sizes=(1, 4_001, 77))
    assert soundfile.read(one)[0].tobytes() == soundfile.read(other)[0].tobytes()
    assert write_file(tmp_path / "c", samples, format_, seed=8).read_bytes() != one.read_bytes()


def test_files_written_at_different_times_are_identical(tmp_path):
    # libsndfile takes what it should not, the time and with it Ogg's serial number, from the second that it writes in.
    samples = signals.music(48_000, 0.5)

    def all_formats(folder):
        folder.mkdir()
        paths = [write_file(folder / format_, samples, format_, rate=48_000) for format_ in FileFormat]
        return {path.name: path.read_bytes() for path in paths}

    first = all_formats(tmp_path / "first")
    second_of_writing = (tmp_path / "first").stat().st_mtime
    repeat = 0
    while True:
        folder = tmp_path / f"again-{repeat}"
        assert all_formats(folder) == first
        if int(folder.stat().st_mtime) > int(second_of_writing):
            break
        repeat += 1


@pytest.mark.parametrize("format_", [FileFormat.OGG_VORBIS, FileFormat.OGG_OPUS])
def test_ogg_pages_have_given_serial_number_and_valid_checksums(tmp_path, format_):
    path = write_file(tmp_path / "a", signals.music(48_000, 3), format_, rate=48_000, seed=2**64 + 0x1234_5678)
    content, position, pages = path.read_bytes(), 0, 0
    while position < len(content):
        header = ogg.PAGE_HEADER.unpack_from(content, position)
        segments = position + ogg.PAGE_HEADER.size
        end = segments + header[-1] + sum(content[segments : segments + header[-1]])
        page = bytearray(content[position:end])
        page[ogg.CHECKSUM_OFFSET : ogg.CHECKSUM_OFFSET + 4] = bytes(4)
        assert header[4:7] == (0x1234_5678, pages, slow_crc(page))
        position, pages = end, pages + 1
    assert pages > 3


def slow_crc(page):
    """RFC 3533, section 6, bit by bit."""
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C1_1DB7 if crc & 0x8000_0000 else crc << 1) & 0xFFFF_FFFF
    return crc


@pytest.mark.parametrize("format_", INTEGER)
def test_samples_over_full_scale_are_clipped(tmp_path, format_):
    samples = np.array([[1.5, -1.5]] * 100, dtype=np.float32)
    read, _ = soundfile.read(write_file(tmp_path / "a", samples, format_))
    assert read[:, 0].min() > 0.999
    assert (read[:, 1] == -1).all()


@pytest.mark.parametrize("format_", RESERVED)
def test_soundfile_reads_tags(tmp_path, format_):
    with soundfile.SoundFile(write_file(tmp_path / "a", signals.music(48_000, 0.1), format_, rate=48_000)) as file:
        assert [getattr(file, name) for name in ("title", "artist", "comment", "genre")] == [
            TAGS.title,
            TAGS.artist,
            TAGS.comment,
            TAGS.genre,
        ]
        assert file.date == ""


@pytest.mark.parametrize(("format_", "width"), [(FileFormat.WAV_PCM_24, 3), (FileFormat.WAV_PCM_16, 2)])
def test_wave_module_reads_file(tmp_path, format_, width):
    samples = signals.music(44_100, 0.5)
    path = write_file(tmp_path / "a", samples, format_, rate=44_100)
    with wave.open(str(path)) as file:
        found = (file.getnframes(), file.getframerate(), file.getnchannels(), file.getsampwidth())
    assert found == (len(samples), 44_100, 2, width)


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
@pytest.mark.parametrize("format_", FileFormat)
def test_ffprobe_reads_file_without_warnings(tmp_path, format_):
    path = write_file(tmp_path / f"a{CODECS[format_].extension}", signals.music(48_000, 1), format_, rate=48_000)
    shown = "stream=sample_rate,channels,duration:format_tags=title:stream_tags=title"
    command = ["ffprobe", "-v", "warning", "-show_entries", shown, "-of", "json", path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    [stream] = found["streams"]
    assert (stream["sample_rate"], stream["channels"]) == ("48000", 2)
    assert float(stream["duration"]) == pytest.approx(1.0, abs=0.05), "the duration of an MP3 includes its padding"
    assert TAGS.title in (*found["format"].get("tags", {}).values(), *map(str, stream.get("tags", {}).values()))
    assert [line for line in done.stderr.splitlines() if not line.endswith(HARMLESS_WARNINGS)] == []


@pytest.mark.skipif(shutil.which("soxi") is None, reason="sox is not installed")
@pytest.mark.parametrize("format_", [FileFormat.WAV_PCM_24, FileFormat.WAV_PCM_16, FileFormat.WAV_FLOAT])
def test_sox_counts_all_samples(tmp_path, format_):
    path = write_file(tmp_path / "a.wav", signals.music(48_000, 1), format_, rate=48_000)
    counted = subprocess.run(["soxi", "-s", path], capture_output=True, text=True, check=True).stdout
    assert int(counted) == 48_000


@pytest.mark.parametrize("format_", [FileFormat.WAV_PCM_24, FileFormat.WAV_PCM_16, FileFormat.WAV_FLOAT])
@pytest.mark.parametrize("frames", [1_000, 1_001])
def test_wav_header_sizes_are_correct(tmp_path, format_, frames):
    path = write_file(tmp_path / "a", np.zeros((frames, 1), np.float32), format_)
    content, found = chunks(path)
    width = CODECS[format_].bits // 8 or 4
    assert content[:4] == b"RIFF"
    assert struct.unpack_from("<I", content, 4) == (len(content) - 8,)
    assert found[b"data"][1] == frames * width
    start, size = found[b"data"]
    assert start + size + size % 2 == len(content), "chunks are padded to an even length"


@pytest.mark.parametrize("format_", [FileFormat.WAV_PCM_24, FileFormat.WAV_FLOAT])
def test_rf64_has_64_bit_sizes(tmp_path, monkeypatch, format_):
    monkeypatch.setattr(writer, "MAX_WAV_BYTES", 10_000)
    samples = signals.music(32_000, 1)
    one, other = (write_file(tmp_path / name, samples, format_) for name in "ab")
    assert one.read_bytes() == other.read_bytes()
    content, found = chunks(one)
    assert content[:4] == b"RF64"
    size = len(samples) * 2 * (CODECS[format_].bits // 8 or 4)
    place, _ = found[b"ds64"]
    assert struct.unpack_from("<QQQ", content, place) == (len(content) - 8, size, len(samples))
    assert struct.unpack_from("<I", content, 4) == (0xFFFF_FFFF,)
    assert found[b"data"][1] == 0xFFFF_FFFF
    read = soundfile.info(one)
    assert (read.format, read.frames) == ("RF64", len(samples))


@pytest.mark.parametrize(
    ("frames", "format_", "expected"),
    [
        (10, FileFormat.WAV_PCM_24, "WAV"),
        (700_000_000, FileFormat.WAV_PCM_24, "WAV"),
        (720_000_000, FileFormat.WAV_PCM_24, "RF64"),
        (720_000_000, FileFormat.WAV_PCM_16, "WAV"),
        (540_000_000, FileFormat.WAV_FLOAT, "RF64"),
        (720_000_000, FileFormat.FLAC_24, "FLAC"),
    ],
)
def test_wav_over_4_gib_uses_rf64(frames, format_, expected):
    assert AudioFile(format_, 48_000, 2, frames, None, 0).container == expected


def test_write_does_not_overwrite_existing_file(tmp_path):
    (tmp_path / "a").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        write_file(tmp_path / "a", signals.music(32_000, 0.1))
    assert (tmp_path / "a").read_bytes() == b"precious"


@pytest.mark.parametrize("format_", DISK_FORMATS)
def test_write_raises_the_os_error_of_the_disk(tmp_path, format_):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    samples = signals.music(32_000, 10)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            write_file(tmp_path / "a", samples, format_)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_write_raises_soundfile_errors_unchanged(tmp_path):
    mono = AudioFile(FileFormat.WAV_PCM_24, 32_000, 1, 10, None, 0)
    with pytest.raises(ValueError, match="channels"):
        mono.write(tmp_path / "a", [np.zeros((10, 2), dtype=np.float32)], 0.0)
    with pytest.raises(soundfile.LibsndfileError):
        replace(mono, channels=0).write(tmp_path / "b", [], 0.0)
