"""Files from outside: what is taken, and that what is not is refused with what was expected."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import soundfile

from dgx_music.errors import InvalidArgument
from export_service.formats.reader import source_file

RATE = 44_100
SAMPLES = (np.sin(np.arange(RATE)[:, None] * [0.05, 0.03]) * 0.5).astype(np.float32)


def written(path, samples=SAMPLES, rate=RATE, **how):
    soundfile.write(path, samples, rate, **{"format": "WAV", "subtype": "PCM_16", **how})
    return path.read_bytes()


def read(path, max_seconds=600.0):
    with source_file(path, max_seconds) as file:
        return np.concatenate(list(file.blocks()))


def data_chunk_at(content):
    return content.index(b"data")


@pytest.mark.parametrize("length", [0x7FFF_F000, 0xFFFF_FFFF])
def test_a_wav_written_into_a_pipe_does_not_know_its_length(tmp_path, length):
    path = tmp_path / "piped"
    content = bytearray(written(path))
    for at in (4, data_chunk_at(content) + 4):
        content[at : at + 4] = struct.pack("<I", length)
    path.write_bytes(content)
    np.testing.assert_allclose(read(path), SAMPLES, atol=2**-15)


def test_other_chunks_may_stand_before_and_after_the_samples(tmp_path):
    path = tmp_path / "tagged"
    content = written(path)
    at = data_chunk_at(content)
    other = b"note" + struct.pack("<I", 3) + b"abc\0"  # An odd length, and its padding.
    path.write_bytes(content[:at] + other + content[at:] + other)
    np.testing.assert_allclose(read(path), SAMPLES, atol=2**-15)


@pytest.mark.parametrize("missing", [1, 2, 3_000, RATE])
def test_a_wav_that_was_cut_off(tmp_path, missing):
    path = tmp_path / "cut"
    path.write_bytes(written(path, subtype="PCM_24")[:-missing])
    with pytest.raises(InvalidArgument, match=rf"^data: must be a whole WAV.*the last {missing} of its .* are missing"):
        read(path)


def test_a_wav_that_was_cut_off_in_its_header(tmp_path):
    path = tmp_path / "cut"
    content = written(path)
    path.write_bytes(content[: data_chunk_at(content)])
    with pytest.raises(InvalidArgument, match=r"ends before its samples begin"):
        read(path)


@pytest.mark.parametrize("left", [0.999, 0.5, 0.1])
def test_a_flac_that_was_cut_off(tmp_path, left):
    path = tmp_path / "cut"
    content = written(path, format="FLAC")
    path.write_bytes(content[: int(len(content) * left)])
    with pytest.raises(InvalidArgument, match=r"^data: must be a whole WAV.*truncated or damaged"):
        read(path)


def test_a_damaged_flac(tmp_path):
    path = tmp_path / "damaged"
    content = bytearray(written(path, format="FLAC"))
    content[len(content) // 2] ^= 0x55
    path.write_bytes(content)
    with pytest.raises(InvalidArgument, match=r"truncated or damaged"):
        read(path)


def test_a_flac_that_does_not_tell_its_length(tmp_path):
    path = tmp_path / "piped"
    content = bytearray(written(path, format="FLAC"))
    content[21] &= 0xF0  # The 36 bits of STREAMINFO's total samples.
    content[22:26] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(InvalidArgument, match=r"does not tell its length"):
        read(path)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"format": "AIFF"}, "it is neither"),
        ({"format": "OGG", "subtype": "VORBIS"}, "it is neither"),
        ({"format": "WAV", "subtype": "ULAW"}, "it is WAV with ULAW"),
        ({"format": "WAV", "subtype": "MS_ADPCM"}, "it is WAV with MS_ADPCM"),
        ({"samples": np.zeros((RATE, 3), np.float32)}, "1 or 2 channels, not 3"),
        ({"samples": np.zeros((4_000, 1), np.float32), "rate": 4_000}, "8000 to 192000 frames a second, not 4000"),
        ({"samples": SAMPLES[:4_409]}, "0.1 to 600 s of audio, not 0.100"),
        ({"samples": np.zeros((8_000 * 601, 1), np.int16), "rate": 8_000}, "0.1 to 600 s of audio, not 601.000 s"),
    ],
)
def test_what_is_not_taken(tmp_path, how, says):
    path = tmp_path / "file"
    written(path, **how)
    with pytest.raises(InvalidArgument, match=rf"^data: must.*{says}"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"# Notes\n" * 100, b"fLaC" + bytes(500), b"ID3\4" + bytes(500)])
def test_what_is_no_audio(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(InvalidArgument, match=r"^data: must be a whole WAV"):
        read(path)


@pytest.mark.parametrize(("subtype", "bad"), [("FLOAT", np.nan), ("FLOAT", -np.inf), ("DOUBLE", 1e300)])
def test_samples_that_are_no_numbers_here(tmp_path, subtype, bad):
    samples = np.zeros((RATE * 3, 2))
    samples[100_000, 1] = bad
    path = tmp_path / "file"
    written(path, samples, subtype=subtype)
    with pytest.raises(InvalidArgument, match=r"^data: frame 100000, channel 1 is"):
        read(path)
