"""Files from outside: which are accepted, and how others are rejected."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import soundfile

from dgx_music.errors import InvalidArgument
from export_service.formats.reader import open_source_file

RATE = 44_100
SAMPLES = (np.sin(np.arange(RATE)[:, None] * [0.05, 0.03]) * 0.5).astype(np.float32)


def write_file(path, samples=SAMPLES, rate=RATE, **options):
    soundfile.write(path, samples, rate, **{"format": "WAV", "subtype": "PCM_16", **options})
    return path.read_bytes()


def read_file(path, max_seconds=600.0):
    with open_source_file(path, max_seconds) as file:
        return np.concatenate(list(file.blocks()))


def data_chunk_at(content):
    return content.index(b"data")


@pytest.mark.parametrize("length", [0x7FFF_F000, 0xFFFF_FFFF])
def test_wav_with_unknown_length_is_read(tmp_path, length):
    path = tmp_path / "piped"
    content = bytearray(write_file(path))
    for at in (4, data_chunk_at(content) + 4):
        content[at : at + 4] = struct.pack("<I", length)
    path.write_bytes(content)
    np.testing.assert_allclose(read_file(path), SAMPLES, atol=2**-15)


def test_wav_with_other_chunks_is_read(tmp_path):
    path = tmp_path / "tagged"
    content = write_file(path)
    at = data_chunk_at(content)
    other = b"note" + struct.pack("<I", 3) + b"abc\0"  # An odd length, and its padding.
    path.write_bytes(content[:at] + other + content[at:] + other)
    np.testing.assert_allclose(read_file(path), SAMPLES, atol=2**-15)


@pytest.mark.parametrize("missing", [1, 2, 3_000, RATE])
def test_truncated_wav_is_rejected(tmp_path, missing):
    path = tmp_path / "cut"
    path.write_bytes(write_file(path, subtype="PCM_24")[:-missing])
    with pytest.raises(InvalidArgument, match=rf"^data: must be a complete .*the last {missing} of its .* are missing"):
        read_file(path)


def test_wav_truncated_in_its_header_is_rejected(tmp_path):
    path = tmp_path / "cut"
    content = write_file(path)
    path.write_bytes(content[: data_chunk_at(content)])
    with pytest.raises(InvalidArgument, match=r"ends before its samples begin"):
        read_file(path)


@pytest.mark.parametrize("left", [0.999, 0.5, 0.1])
def test_truncated_flac_is_rejected(tmp_path, left):
    path = tmp_path / "cut"
    content = write_file(path, format="FLAC")
    path.write_bytes(content[: int(len(content) * left)])
    with pytest.raises(InvalidArgument, match=r"^data: must be a complete WAV.*truncated or damaged"):
        read_file(path)


def test_damaged_flac_is_rejected(tmp_path):
    path = tmp_path / "damaged"
    content = bytearray(write_file(path, format="FLAC"))
    content[len(content) // 2] ^= 0x55
    path.write_bytes(content)
    with pytest.raises(InvalidArgument, match=r"truncated or damaged"):
        read_file(path)


def test_flac_with_unknown_length_is_rejected(tmp_path):
    path = tmp_path / "piped"
    content = bytearray(write_file(path, format="FLAC"))
    content[21] &= 0xF0  # The 36 bits of STREAMINFO's total samples.
    content[22:26] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(InvalidArgument, match=r"does not contain its length"):
        read_file(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "AIFF"}, "it is neither"),
        ({"format": "OGG", "subtype": "VORBIS"}, "it is neither"),
        ({"format": "WAV", "subtype": "ULAW"}, "it is WAV with ULAW"),
        ({"format": "WAV", "subtype": "MS_ADPCM"}, "it is WAV with MS_ADPCM"),
        ({"samples": np.zeros((RATE, 3), np.float32)}, "1 or 2 channels, not 3"),
        (
            {"samples": np.zeros((4_000, 1), np.float32), "rate": 4_000},
            "8000 to 192000 Hz, not 4000 Hz",
        ),
        ({"samples": SAMPLES[:4_409]}, "0.1 to 600 s of audio, not 0.100"),
        ({"samples": np.zeros((8_000 * 601, 1), np.int16), "rate": 8_000}, "0.1 to 600 s of audio, not 601.000 s"),
    ],
)
def test_unsupported_file_is_rejected(tmp_path, options, message):
    path = tmp_path / "file"
    write_file(path, **options)
    with pytest.raises(InvalidArgument, match=rf"^data: must.*{message}"):
        read_file(path)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"# Notes\n" * 100, b"fLaC" + bytes(500), b"ID3\4" + bytes(500)])
def test_non_audio_is_rejected(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(InvalidArgument, match=r"^data: must be a complete WAV"):
        read_file(path)


@pytest.mark.parametrize(("subtype", "bad"), [("FLOAT", np.nan), ("FLOAT", -np.inf), ("DOUBLE", 1e300)])
def test_non_finite_samples_are_rejected(tmp_path, subtype, bad):
    samples = np.zeros((RATE * 3, 2))
    samples[100_000, 1] = bad
    path = tmp_path / "file"
    write_file(path, samples, subtype=subtype)
    with pytest.raises(InvalidArgument, match=r"^data: frame 100000, channel 1 is"):
        read_file(path)
