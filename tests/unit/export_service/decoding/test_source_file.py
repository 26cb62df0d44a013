"""Files from outside, written by several programs: which are accepted, and how others are rejected."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import sys
import wave

import numpy as np
import pytest
import soundfile

from dgx_music.errors import InvalidArgument
from export_service.decoding.source_file import SOURCE_FILE_REQUIREMENT, open_source_file
from tests.support.foreign_files import PIPED, decode, encode_tones, ffmpeg, tones

RATE = 44_100
SAMPLES = (np.sin(np.arange(RATE)[:, None] * [0.05, 0.03]) * 0.5).astype(np.float32)
ID3 = b"ID3\4\0\0\0\0\2\0" + bytes(256)
ID3_WITH_FOOTER = b"ID3\4\0\x10\0\0\2\0" + bytes(256) + b"3DI\4\0\x10\0\0\2\0"
LARGE_ID3 = b"ID3\3\0\0\0\x7f\x7f\x7f" + bytes(0x1F_FFFF)
ID3V1 = b"TAG" + bytes(125)

PCM_16, PCM_8, COMPANDED, ADPCM = 2**-14, 2**-6, 0.025, 0.1
"""How much samples may differ after a trip through these encodings."""
FLAC_32 = ["-sample_fmt", "s32", "-bits_per_raw_sample", "32", "-strict", "experimental"]
"""FLAC with 32 bits, which FFmpeg decodes."""


def write_file(path, samples=SAMPLES, rate=RATE, **options):
    soundfile.write(path, samples, rate, **{"format": "WAV", "subtype": "PCM_16", **options})
    return path.read_bytes()


def read_file(path, max_seconds=600.0):
    with open_source_file(path, max_seconds) as file:
        return np.concatenate(list(file.blocks()))


def read(path, content, max_seconds=600.0):
    """Returns the open file and its samples."""
    path.write_bytes(content)
    with open_source_file(path, max_seconds) as file:
        return file, np.concatenate(list(file.blocks()))


def reject(path, content, max_seconds=600.0):
    """Returns why the file is rejected."""
    path.write_bytes(content)
    with pytest.raises(InvalidArgument) as raised, open_source_file(path, max_seconds) as file:
        list(file.blocks())
    assert raised.value.field == "data"
    assert path.read_bytes() == content
    return raised.value.problem


def overwrite(content, at, replacement):
    return content[:at] + replacement + content[at + len(replacement) :]


@pytest.mark.parametrize("is_piped", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize(
    ("muxer", "options", "description", "tolerance"),
    [
        ("wav", ["-c:a", "pcm_s16le"], "WAV, 16-bit PCM", PCM_16),
        ("wav", ["-c:a", "pcm_u8"], "WAV, 8-bit PCM", PCM_8),
        ("wav", ["-c:a", "pcm_s24le"], "WAV, 24-bit PCM", 2**-22),
        ("wav", ["-c:a", "pcm_s32le"], "WAV, 32-bit PCM", 2**-22),
        ("wav", ["-c:a", "pcm_f32le"], "WAV, 32-bit float", 2**-22),
        ("wav", ["-c:a", "pcm_f64le"], "WAV, 64-bit float", 2**-22),
        ("wav", ["-c:a", "pcm_alaw"], "WAV, A-law", COMPANDED),
        ("wav", ["-c:a", "pcm_mulaw"], "WAV, µ-law", COMPANDED),
        ("wav", ["-c:a", "adpcm_ima_wav"], "WAV, IMA ADPCM", ADPCM),
        ("wav", ["-c:a", "adpcm_ms"], "WAV, Microsoft ADPCM", ADPCM),
        ("wav", ["-rf64", "always"], "RF64, 16-bit PCM", PCM_16),
        ("w64", [], "W64, 16-bit PCM", PCM_16),
        ("aiff", [], "AIFF, 16-bit PCM", PCM_16),
        ("aiff", ["-c:a", "pcm_s16le"], "AIFF, 16-bit PCM", PCM_16),  # The encoding "sowt".
        ("aiff", ["-c:a", "pcm_f64be"], "AIFF, 64-bit float", 2**-22),
        ("caf", ["-c:a", "pcm_s24le"], "CAF, 24-bit PCM", 2**-22),
        ("au", [], "AU, 16-bit PCM", PCM_16),
        ("flac", ["-sample_fmt", "s16"], "FLAC, 16-bit", PCM_16),
        ("oga", ["-sample_fmt", "s16"], "Ogg FLAC", PCM_16),
    ],
)
def test_file_of_ffmpeg_is_read(tmp_path, muxer, options, description, tolerance, is_piped):
    content = encode_tones(*options, "-f", muxer, output=PIPED if is_piped else f"a.{muxer}")
    file, samples = read(tmp_path / "file", content)
    assert (file.description, file.sample_rate_hz, file.source_channels, file.channels) == (description, RATE, 2, 2)
    expected = tones()
    if "adpcm" in str(options):  # These have blocks of a fixed length.
        samples = samples[: len(expected)]
    assert file.frames_read >= len(expected)
    np.testing.assert_allclose(samples, expected, atol=tolerance)


@pytest.mark.parametrize("is_piped", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize(
    ("options", "rate", "description"),
    [
        (["-f", "mp3"], 44_100, "MP3"),
        (["-f", "mp3", "-q:a", "2", "-id3v2_version", "0"], 16_000, "MP3"),
        (["-f", "mp3", "-write_xing", "0", "-write_id3v1", "1", "-metadata", "title=x"], 8_000, "MP3"),
        (["-f", "mp2"], 48_000, "MP2"),
        (["-f", "ogg", "-c:a", "libvorbis"], 32_000, "Ogg Vorbis"),
        (["-f", "ogg", "-c:a", "libopus"], 48_000, "Opus"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_compressed_file_has_the_samples_that_ffmpeg_decodes(tmp_path, options, rate, description, is_piped):
    content = encode_tones(*options, output=PIPED if is_piped else "a", rate_hz=rate)
    file, samples = read(tmp_path / "file", content)
    assert (file.description, file.sample_rate_hz) == (description, rate)
    expected = decode(content)
    compared = min(len(samples), len(expected))  # ffmpeg omits or adds some at the end, depending on its version.
    assert compared > 3_000
    assert np.abs(samples[:compared] - expected[:compared]).max() < 1e-4
    # An MP3 file that was piped does not say what is padding.
    assert 0 <= len(samples) - 0.5 * rate <= (2_500 if description.startswith("MP") else 0)


@pytest.mark.skipif(not shutil.which("sox"), reason="sox is not installed")
@pytest.mark.parametrize("kind", ["wav", "aiff", "au", "w64", "caf", "flac"])
def test_file_that_sox_wrote_into_a_pipe_is_read(tmp_path, kind):
    content = subprocess.run(
        ["sox", "-n", "-r", "44100", "-c", "2", "-b", "16", "-t", kind, "-", "synth", "0.5", "sine", "200"],
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout
    file, samples = read(tmp_path / "file", content)
    assert (file.frames_read, file.channels) == (22_050, 2)
    spectrum = np.abs(np.fft.rfft(samples[:, 1]))
    assert spectrum[100] > 100 * np.delete(spectrum, [98, 99, 100, 101, 102]).max(), "it contains no noise"


@pytest.mark.parametrize(
    ("riff_size", "data_size"),
    [(0, 0), (0xFFFF_FFFF, 0xFFFF_FFFF), (0x7FFF_F024, 0x7FFF_F000), (0x8000_0024, 0x8000_0000), (36, 0), (0, None)],
)
def test_wav_with_unknown_length_is_read(tmp_path, riff_size, data_size):
    content = write_file(tmp_path / "file")
    content = overwrite(content, 4, struct.pack("<I", riff_size))
    if data_size is not None:
        content = overwrite(content, content.index(b"data") + 4, struct.pack("<I", data_size))
    for extra in (b"", b"\1"):  # It may end within a frame.
        _, samples = read(tmp_path / "file", content + extra)
        np.testing.assert_allclose(samples, SAMPLES, atol=2**-15)


def test_au_with_unknown_length_is_read(tmp_path):
    content = overwrite(encode_tones(output="a.au"), 8, bytes(4))
    np.testing.assert_allclose(read(tmp_path / "file", content)[1], tones(), atol=PCM_16)


def test_wav_with_other_chunks_is_read(tmp_path):
    content = write_file(tmp_path / "file")
    at = content.index(b"data")
    note = b"note" + struct.pack("<I", 3) + b"abc\0"  # An odd length, and its padding.
    large = b"iXML" + struct.pack("<I", 1_500_000) + bytes(1_500_000)
    second = b"data" + struct.pack("<I", 1_000) + bytes(1_000)
    _, samples = read(tmp_path / "file", content[:at] + note + large + content[at:] + note + second + b"junk")
    np.testing.assert_allclose(samples, SAMPLES, atol=2**-15)


@pytest.mark.parametrize(
    ("prefix", "options", "output", "suffix"),
    [
        (ID3, ["-f", "wav"], PIPED, b""),
        (ID3, ["-f", "wav"], "a.wav", b""),
        (ID3 * 2, ["-sample_fmt", "s16", "-f", "flac"], "a.flac", ID3V1),
        (ID3_WITH_FOOTER, ["-sample_fmt", "s16", "-f", "flac"], PIPED, ID3V1),
        (LARGE_ID3, ["-f", "aiff"], "a.aiff", b""),
    ],
)
def test_tags_around_file_are_skipped(tmp_path, prefix, options, output, suffix):
    _, samples = read(tmp_path / "file", prefix + encode_tones(*options, output=output) + suffix)
    np.testing.assert_allclose(samples, tones(), atol=PCM_16)


@pytest.mark.parametrize(
    ("prefix", "suffix"),
    [(ID3, b""), (ID3 + bytes(5_000), ID3V1), (ID3_WITH_FOOTER, b""), (LARGE_ID3 + ID3, b""), (bytes(100), b"")],
)
def test_tags_around_mp3_are_skipped(tmp_path, prefix, suffix):
    content = encode_tones("-id3v2_version", "0", output="a.mp3")
    _, samples = read(tmp_path / "file", prefix + content + suffix)
    np.testing.assert_array_equal(samples, read(tmp_path / "file", content)[1])
    assert len(samples) == 22_050, "the encoder's delay and padding are not part of the audio"


def test_joined_mp3_files_are_read_to_the_end(tmp_path):
    content = encode_tones(output="a.mp3")
    _, samples = read(tmp_path / "file", content + content)
    assert len(samples) >= 2 * 22_050
    assert np.abs(samples[-10_000:-5_000]).max() > 0.4


def test_bw64_is_read(tmp_path):
    content = b"BW64" + encode_tones("-rf64", "always", output="a.wav")[4:]
    size_at = content.index(b"data") + 4
    # A small file may have its length in the chunk itself.
    for variant in (content, overwrite(content, size_at, struct.pack("<I", len(content) - size_at - 4))):
        np.testing.assert_allclose(read(tmp_path / "file", variant)[1], tones(), atol=PCM_16)


@pytest.mark.parametrize(
    ("options", "description"),
    [
        ({"format": "WAV", "endian": "BIG"}, "WAV, 16-bit PCM"),
        ({"format": "WAVEX", "subtype": "PCM_24"}, "WAV, 24-bit PCM"),
        ({"format": "AU", "endian": "LITTLE"}, "AU, 16-bit PCM"),
        ({"format": "CAF", "subtype": "ALAC_16"}, "CAF, 16 bit ALAC"),
        ({"format": "AIFF", "subtype": "PCM_S8"}, "AIFF, 8-bit PCM"),
        ({"format": "WAV", "subtype": "GSM610", "samples": SAMPLES[:, :1], "rate": 8_000}, "WAV, GSM 6.10"),
    ],
)
def test_file_of_libsndfile_is_read(tmp_path, options, description):
    write_file(tmp_path / "file", **options)
    with open_source_file(tmp_path / "file", 600.0) as file:
        samples = np.concatenate(list(file.blocks()))
    assert file.description == description
    expected, _ = soundfile.read(tmp_path / "file", dtype="float32", always_2d=True)
    np.testing.assert_array_equal(samples, expected)


@pytest.mark.parametrize("missing", [1, 2, 3_000, RATE])
def test_truncated_wav_is_rejected(tmp_path, missing):
    content = write_file(tmp_path / "cut", subtype="PCM_24")[:-missing]
    assert reject(tmp_path / "cut", content).endswith(
        f"; it is a WAV file, but the last {missing} of its {RATE * 6} bytes of samples are missing"
    )


@pytest.mark.parametrize(
    ("options", "output", "problem"),
    [
        (["-rf64", "always"], "a.wav", "it is an RF64 file, but the last 1001 of its 88200 bytes"),
        ([], "a.w64", "it is a W64 file, but the last 1001 of its 88200 bytes"),
        ([], "a.aiff", "it is an AIFF file, but the last 1001 of its 88208 bytes"),
        ([], "a.caf", "it is a CAF file, but the last 1001 of its 88204 bytes"),
        ([], "a.au", "it is an AU file, but the last 1001 of its 88200 bytes"),
        ([], "a.flac", "it can't be read beyond frame 0 of 22050: truncated or damaged"),
        (["-f", "flac"], PIPED, "it can't be read beyond frame 0: truncated or damaged"),
        ([], "a.mp3", "of 22050: truncated or damaged"),
        (["-c:a", "libvorbis"], "a.ogg", "it is an Ogg file, but it is truncated: its last page"),
        (["-c:a", "libopus", "-ar", "48000"], "a.opus", "it is an Ogg file, but it is truncated: its last page"),
        ([], "a.oga", "it is an Ogg file, but it is truncated: its last page"),
        ([], "a.m4a", "it is an MPEG-4 file (M4A, MP4 or MOV), but its header is damaged"),
        (["-movflags", "+faststart"], "a.m4a", "of 22050: truncated or damaged"),
        ([], "a.wv", "of 22050: truncated or damaged"),
    ],
)
def test_truncated_file_is_rejected(tmp_path, options, output, problem):
    assert problem in reject(tmp_path / "file", encode_tones(*options, output=output)[:-1_001])


@pytest.mark.parametrize(
    ("options", "output", "problem"),
    [
        ([], "a.flac", "it can't be read beyond frame 0 of 22050: truncated or damaged"),
        (["-c:a", "libvorbis"], "a.ogg", "it is damaged: the page at byte "),
        (FLAC_32, "a.flac", " of 22050: truncated or damaged"),
        ([], "a.m4a", "truncated or damaged"),
    ],
)
def test_damaged_file_is_rejected(tmp_path, options, output, problem):
    content = encode_tones(*options, output=output)
    middle = len(content) // 2
    assert problem in reject(tmp_path / "file", overwrite(content, middle, bytes(60)))


@pytest.mark.parametrize("frames", [10_000, 1_000_000])
def test_flac_with_wrong_length_is_rejected(tmp_path, frames):
    content = overwrite(encode_tones(output="a.flac"), 22, struct.pack(">I", frames))
    assert f"{frames}" in reject(tmp_path / "file", content)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": np.zeros((4_000, 1), np.float32), "rate": 4_000}, "8000 to 192000 Hz, not 4000 Hz"),
        ({"samples": np.zeros((384_000, 1), np.float32), "rate": 384_000}, "8000 to 192000 Hz, not 384000 Hz"),
        ({"samples": SAMPLES[:4_409]}, "0.1 to 600 s of audio, not 0.100"),
        ({"samples": np.zeros((8_000 * 601, 1), np.int16), "rate": 8_000}, "0.1 to 600 s of audio, not 601.000 s"),
        ({"samples": SAMPLES[:100], "format": "MP3", "subtype": "MPEG_LAYER_III"}, "0.1 to 600 s of audio, not 0.0"),
    ],
)
def test_file_outside_limits_is_rejected(tmp_path, options, message):
    content = write_file(tmp_path / "file", **options)
    assert message in reject(tmp_path / "file", content)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is empty"),
        (b"a", "it is text"),
        (b"# Notes\n" * 100, "it is text"),
        ("Grüße aus Köln ".encode() * 1_000, "it is text"),
        (b"  <!DOCTYPE html><html>", "it is a web page"),
        (bytes(5_000), "it is a file that begins with zeros"),
        (np.random.default_rng(3).bytes(5_000), "it is not recognized as an audio file"),
        (SAMPLES.astype("<f4").tobytes(), "it is not recognized as an audio file"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "it is a JPEG picture"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "it is a PNG picture"),
        (b"PK\3\4" + bytes(100), "it is a ZIP archive"),
        (b"%PDF-1.7\n", "it is a PDF document"),
        (b"MThd\0\0\0\6\0\1", "it is a MIDI file, which contains notes and no sound"),
        (b"#EXTM3U\n/etc/passwd\n", "it is a playlist"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "it is text"),
        (b"ID3\4\0\0\0\0\0\x0a" + bytes(10), "it ends within an ID3 tag"),
        (b"ID3\4\0\0\x7f\x7f\x7f\x7f" + bytes(10), "it ends within an ID3 tag"),
        (b"RIFF\0\0\0\0WAVE", "it is a WAV file, but it ends before its samples begin"),
        (b"RF64\0\0\0\0WAVE", "it is an RF64 file, but it ends before its samples begin"),
        (b"FORM\0\0\0\4AIFF", "it is an AIFF file, but it ends before its samples begin"),
        (b"caff\0\1\0\0", "it is a CAF file, but it ends before its samples begin"),
        (b".snd", "it is an AU file, but it ends before its samples begin"),
        (b"fLaC" + bytes(500), "it is a FLAC file, but its header is damaged"),
        (b"\xff\xfb\x90\0" + bytes(2_000), "it is an MP3 file, but its header is damaged"),
        (b"\0\0\0\x20ftypM4A ", "it is an MPEG-4 file (M4A, MP4 or MOV), but its header is damaged"),
        (
            b"RIFF\xff\xff\xff\x7fWAVE" + b"JUNK\0\0\0\0" * 20_000,
            "it is a WAV file, but it ends before its samples begin",
        ),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else None,
)
def test_other_file_is_rejected(tmp_path, content, problem):
    assert reject(tmp_path / "file", content).startswith(f"{SOURCE_FILE_REQUIREMENT}; {problem}")


@pytest.mark.parametrize(
    ("offset", "value", "problem"),
    [
        (22, struct.pack("<H", 0), "its header is damaged, or its encoding is not supported"),
        (22, struct.pack("<H", 1_000), "not 1000 channels"),
        (24, struct.pack("<I", 0), "its header is damaged, or its encoding is not supported"),
        (24, struct.pack("<I", 2_000_000_000), "8000 to 192000 Hz, not 2000000000 Hz"),
        (20, struct.pack("<H", 0x1234), "its header is damaged, or its encoding is not supported"),
    ],
)
def test_wav_with_absurd_header_is_rejected(tmp_path, offset, value, problem):
    content = write_file(tmp_path / "file")
    assert problem in reject(tmp_path / "file", overwrite(content, offset, value))


@pytest.mark.parametrize(("subtype", "bad"), [("FLOAT", np.nan), ("FLOAT", -np.inf), ("DOUBLE", 1e300)])
def test_non_finite_samples_are_rejected(tmp_path, subtype, bad):
    samples = np.zeros((RATE * 3, 2))
    samples[100_000, 1] = bad
    content = write_file(tmp_path / "file", samples, subtype=subtype)
    assert reject(tmp_path / "file", content).startswith("frame 100000, channel 1 is ")


def test_integers_in_a_float_file_are_rejected(tmp_path):
    content = write_file(tmp_path / "file", np.round(SAMPLES * 32767), subtype="FLOAT")
    problem = reject(tmp_path / "file", content)
    assert problem.startswith("frame 2, channel 0 is 1636, more than 1000 times full scale; ")
    assert "divided by 32768" in problem


def test_float_samples_above_full_scale_are_read(tmp_path):
    samples = SAMPLES * 1_900  # 59.6 dB above full scale.
    content = write_file(tmp_path / "file", samples, subtype="FLOAT")
    np.testing.assert_array_equal(read(tmp_path / "file", content)[1], samples)


def wav_without_mask(channels):
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((channels, 2, RATE, 0, "NONE", ""))
        writer.writeframes(bytes(RATE * channels))
    return file.getvalue()


@pytest.mark.parametrize("channels", [3, 6, 9])
def test_surround_without_layout_is_rejected(tmp_path, channels):
    problem = reject(tmp_path / "file", wav_without_mask(channels))
    assert f"not {channels} channels with an unknown layout; mix it down first" in problem


def test_layout_with_height_channels_is_rejected(tmp_path):
    content = encode_tones("-c:a", "pcm_s16le", output="a.mov", layout="5.1.2")
    assert "not 8 channels with the layout FL FR FC LFE SL SR TFL TFR" in reject(tmp_path / "file", content)


BOMB = """
import resource, sys
from pathlib import Path
from dgx_music.errors import InvalidArgument
from export_service.decoding.source_file import open_source_file
def decode(path, max_seconds):
    frames = 0
    try:
        with open_source_file(Path(path), max_seconds) as file:
            for block in file.blocks():
                frames += len(block)
    except InvalidArgument as error:
        return frames, error.problem
    return frames, ""
decode(sys.argv[1], 1.0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
frames, problem = decode(sys.argv[1], float(sys.argv[2]))
grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(frames, grown_kib, problem, sep=";")
"""


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("flac", ["-f", "flac"]),
        ("opus", ["-f", "ogg", "-c:a", "libopus", "-b:a", "6k", "-frame_duration", "60"]),
        pytest.param("aac", ["-f", "adts"], marks=pytest.mark.slow),
    ],
)
def test_decompression_bomb_stops_at_the_limit_in_little_memory(tmp_path, kind, options):
    path = tmp_path / kind
    path.write_bytes(ffmpeg("-f", "lavfi", "-i", "anullsrc=r=48000:cl=stereo", "-t", "120", *options))
    assert path.stat().st_size < 200_000
    result = subprocess.run(
        [sys.executable, "-c", BOMB, path, "110"], capture_output=True, text=True, timeout=120, check=True
    )
    frames, grown_kib, problem = result.stdout.strip().split(";")
    assert problem == "must be 0.1 to 110 s of audio, and is longer"
    assert 108 * 48_000 < int(frames) <= 110 * 48_000
    assert int(grown_kib) < 16_000, "so many samples would take 42 MB"
