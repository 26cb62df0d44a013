"""Files as other programs read them."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import struct
import subprocess
import wave
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from export_service.formats import ogg, writer
from export_service.formats.codecs import FORMS
from export_service.formats.tags import FileTags
from export_service.formats.writer import AudioFile, quantiser
from service_runtime.audio.output_options import SAMPLE_RATES_HZ, FileFormat
from tests.support import signals

TAGS = FileTags("12345678-9abc-def0-1234-56789abcdef0", 1, "dgx-music 0.1", "sketch 1", "house", 124.5, "C minor")
LOSSLESS = [FileFormat.WAV_PCM_24, FileFormat.WAV_PCM_16, FileFormat.FLAC_24, FileFormat.FLAC_16]
LOSSY = [format_ for format_, form in FORMS.items() if form.lossy]


def written(path, samples, format_=FileFormat.WAV_PCM_24, gain_db=0.0, seed=7, sizes=(10_000,), rate=32_000, tags=TAGS):
    blocks, start = [], 0
    while start < len(samples):
        for size in sizes:
            blocks.append(samples[start : start + size])
            start += size
    AudioFile(format_, rate, samples.shape[1], len(samples), tags, seed).write(path, blocks, gain_db)
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
@pytest.mark.parametrize("format_", [FileFormat.WAV_PCM_24, FileFormat.FLAC_24])
def test_24_bits_are_rounded_to_the_nearest_step(tmp_path, channels, format_):
    samples = signals.music(32_000, 1, channels)
    path = written(tmp_path / "a", samples, format_, gain_db=-3.7)
    read, rate = soundfile.read(path, dtype="int32", always_2d=True)
    assert rate == 32_000
    expected = np.rint(samples.astype(np.float64) * 10 ** (-3.7 / 20) * 2**23).astype(np.int32) << 8
    np.testing.assert_array_equal(read, expected)


def test_float_keeps_samples_as_they_are(tmp_path):
    samples = signals.music(32_000, 1) * np.float32(3)
    read, _ = soundfile.read(written(tmp_path / "a", samples, FileFormat.WAV_FLOAT), dtype="float32")
    np.testing.assert_array_equal(read, samples)


@pytest.mark.parametrize("format_", LOSSY)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_lossy_file_has_as_many_frames_and_sounds_alike(tmp_path, format_, channels):
    samples = signals.music(48_000, 2, channels)
    read, rate = soundfile.read(written(tmp_path / "a", samples, format_, rate=48_000), always_2d=True)
    assert (rate, read.shape) == (48_000, samples.shape)
    delays = range(-50, 51)
    alike = [(samples[100:-100, 0] * np.roll(read[:, 0], -delay)[100:-100]).sum() for delay in delays]
    assert delays[int(np.argmax(alike))] == 0
    assert max(alike) == pytest.approx((samples[100:-100, 0] ** 2).sum(), rel=0.1)


@pytest.mark.parametrize("format_", FileFormat)
def test_every_sample_rate_that_it_is_said_to_have(tmp_path, format_):
    samples = signals.music(8_000, 0.2)
    for rate in SAMPLE_RATES_HZ.get(format_, (8_000, 12_345, 44_100, 192_000)):
        read = soundfile.info(written(tmp_path / f"{rate}", samples, format_, rate=rate))
        assert (read.samplerate, read.frames) == (rate, len(samples))


def test_pcm_16_has_triangular_dither():
    samples = np.full((200_000, 2), 0.25 / 2**15, dtype=np.float32)
    steps = quantiser(16, 0.0, 1)(samples) >> 16
    # The mean keeps what is below one step; the error's variance is 1/4 for any level, as TPDF promises.
    assert steps.mean() == pytest.approx(0.25, abs=0.005)
    assert (steps - 0.25).var() == pytest.approx(0.25, abs=0.005)
    assert set(np.unique(steps)) <= {-1, 0, 1}
    assert abs(np.corrcoef(steps.T)[0, 1]) < 0.01


@pytest.mark.parametrize("format_", [FileFormat.WAV_PCM_16, FileFormat.FLAC_16])
def test_dither_does_not_depend_on_the_blocks(tmp_path, format_):
    samples = signals.music(32_000, 1)
    one = written(tmp_path / "a", samples, format_)
    other = written(tmp_path / "b", samples, format_, sizes=(1, 4_001, 77))
    assert soundfile.read(one)[0].tobytes() == soundfile.read(other)[0].tobytes()
    assert written(tmp_path / "c", samples, format_, seed=8).read_bytes() != one.read_bytes()


def test_the_same_byte_for_byte_at_another_time(tmp_path):
    # libsndfile takes what it should not, the time and with it Ogg's serial number, from the second that it writes in.
    samples = signals.music(48_000, 0.5)

    def all_formats(folder):
        folder.mkdir()
        paths = [written(folder / format_, samples, format_, rate=48_000) for format_ in FileFormat]
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
def test_ogg_pages_have_the_serial_number_given_and_add_up(tmp_path, format_):
    path = written(tmp_path / "a", signals.music(48_000, 3), format_, rate=48_000, seed=2**64 + 0x1234_5678)
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


@pytest.mark.parametrize("format_", LOSSLESS)
def test_what_passes_full_scale_is_clipped_not_wrapped(tmp_path, format_):
    samples = np.array([[1.5, -1.5]] * 100, dtype=np.float32)
    read, _ = soundfile.read(written(tmp_path / "a", samples, format_))
    assert read[:, 0].min() > 0.999
    assert (read[:, 1] == -1).all()


@pytest.mark.parametrize("format_", FileFormat)
def test_tags_are_read_by_soundfile(tmp_path, format_):
    with soundfile.SoundFile(written(tmp_path / "a", signals.music(48_000, 0.1), format_, rate=48_000)) as file:
        assert [getattr(file, name) for name in ("title", "artist", "comment", "genre")] == [
            TAGS.title,
            TAGS.artist,
            TAGS.comment,
            TAGS.genre,
        ]
        assert file.date == ""


@pytest.mark.parametrize(("format_", "width"), [(FileFormat.WAV_PCM_24, 3), (FileFormat.WAV_PCM_16, 2)])
def test_pythons_own_reader_opens_it(tmp_path, format_, width):
    samples = signals.music(44_100, 0.5)
    path = written(tmp_path / "a", samples, format_, rate=44_100)
    with wave.open(str(path)) as file:
        found = (file.getnframes(), file.getframerate(), file.getnchannels(), file.getsampwidth())
    assert found == (len(samples), 44_100, 2, width)


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
@pytest.mark.parametrize("format_", FileFormat)
def test_ffprobe_reads_it_without_a_word_of_warning(tmp_path, format_):
    path = written(tmp_path / f"a{FORMS[format_].extension}", signals.music(48_000, 1), format_, rate=48_000)
    shown = "stream=sample_rate,channels,duration:format_tags=title:stream_tags=title"
    command = ["ffprobe", "-v", "warning", "-show_entries", shown, "-of", "json", path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    [stream] = found["streams"]
    assert (stream["sample_rate"], stream["channels"]) == ("48000", 2)
    assert float(stream["duration"]) == pytest.approx(1.0, abs=0.05), "MP3 is told with its padding"
    assert TAGS.title in (*found["format"].get("tags", {}).values(), *map(str, stream.get("tags", {}).values()))
    assert done.stderr == ""


@pytest.mark.skipif(shutil.which("soxi") is None, reason="sox is not installed")
@pytest.mark.parametrize("format_", [FileFormat.WAV_PCM_24, FileFormat.WAV_PCM_16, FileFormat.WAV_FLOAT])
def test_sox_counts_the_same_samples(tmp_path, format_):
    path = written(tmp_path / "a.wav", signals.music(48_000, 1), format_, rate=48_000)
    counted = subprocess.run(["soxi", "-s", path], capture_output=True, text=True, check=True).stdout
    assert int(counted) == 48_000


@pytest.mark.parametrize("format_", [FileFormat.WAV_PCM_24, FileFormat.WAV_PCM_16, FileFormat.WAV_FLOAT])
@pytest.mark.parametrize("frames", [1_000, 1_001])
def test_sizes_in_the_header_are_right(tmp_path, format_, frames):
    path = written(tmp_path / "a", np.zeros((frames, 1), np.float32), format_)
    content, found = chunks(path)
    width = FORMS[format_].bits // 8 or 4
    assert content[:4] == b"RIFF"
    assert struct.unpack_from("<I", content, 4) == (len(content) - 8,)
    assert found[b"data"][1] == frames * width
    start, size = found[b"data"]
    assert start + size + size % 2 == len(content), "chunks are padded to an even length"


@pytest.mark.parametrize("format_", [FileFormat.WAV_PCM_24, FileFormat.WAV_FLOAT])
def test_rf64_has_its_sizes_in_64_bits(tmp_path, monkeypatch, format_):
    monkeypatch.setattr(writer, "LARGEST_WAV_BYTES", 10_000)
    samples = signals.music(32_000, 1)
    one, other = (written(tmp_path / name, samples, format_) for name in "ab")
    assert one.read_bytes() == other.read_bytes()
    content, found = chunks(one)
    assert content[:4] == b"RF64"
    size = len(samples) * 2 * (FORMS[format_].bits // 8 or 4)
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
def test_beyond_4_gib_it_is_rf64(frames, format_, expected):
    assert AudioFile(format_, 48_000, 2, frames, None, 0).container == expected


def test_an_existing_part_is_never_written_over(tmp_path):
    (tmp_path / "a").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        written(tmp_path / "a", signals.music(32_000, 0.1))
    assert (tmp_path / "a").read_bytes() == b"precious"


@pytest.mark.parametrize("format_", [FileFormat.WAV_PCM_24, FileFormat.FLAC_24, FileFormat.OGG_VORBIS, FileFormat.MP3])
def test_the_disks_own_word_for_why_it_refused(tmp_path, format_):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    samples = signals.music(32_000, 10)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            written(tmp_path / "a", samples, format_)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_tag_or_block_that_soundfile_refuses_is_not_taken_for_the_disk(tmp_path):
    mono = AudioFile(FileFormat.WAV_PCM_24, 32_000, 1, 10, None, 0)
    with pytest.raises(ValueError, match="channels"):
        mono.write(tmp_path / "a", [np.zeros((10, 2), dtype=np.float32)], 0.0)
    with pytest.raises(soundfile.LibsndfileError):
        replace(mono, channels=0).write(tmp_path / "b", [], 0.0)
