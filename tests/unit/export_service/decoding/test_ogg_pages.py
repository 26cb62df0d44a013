"""Ogg files with several streams, without an end, or not complete."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from dgx_music.errors import InvalidArgument
from export_service.decoding.source_file import open_source_file
from export_service.tagging.ogg import PAGE_HEADER, set_checksum
from tests.support.foreign_files import encode_tones, ffmpeg

CODECS = [("libvorbis", 44_100), ("libopus", 48_000), ("flac", 44_100)]


def read(path, content):
    path.write_bytes(content)
    with open_source_file(path, 600.0) as file:
        return np.concatenate(list(file.blocks()))


def pages(content):
    """Splits a file into its pages: header, lacing and content in one piece each."""
    result = []
    while content:
        segments = content[26]
        size = 27 + segments + sum(content[27 : 27 + segments])
        result.append(content[:size])
        content = content[size:]
    return result


def with_checksum(page):
    page = bytearray(page)
    set_checksum(page)
    return bytes(page)


def one_page_stream(packet):
    """Returns the first and only page of a stream."""
    header = PAGE_HEADER.pack(b"OggS", 0, 2 | 4, 0, 77, 0, 0, 1)
    return with_checksum(header + bytes([len(packet)]) + packet)


@pytest.mark.parametrize(("codec", "rate"), CODECS)
def test_recording_without_an_end_is_read(tmp_path, codec, rate):
    content = encode_tones("-c:a", codec, output="a.ogg", rate_hz=rate, seconds=2.0)
    whole = read(tmp_path / "file", content)
    *others, last = pages(content)
    assert last[5] & 4
    endless = with_checksum(last[:5] + bytes([last[5] & ~4]) + last[6:])
    np.testing.assert_array_equal(read(tmp_path / "file", b"".join([*others, endless])), whole)


@pytest.mark.parametrize(("codec", "rate"), CODECS)
def test_missing_page_is_rejected(tmp_path, codec, rate):
    every = pages(encode_tones("-c:a", codec, output="a.ogg", rate_hz=rate, seconds=5.0))
    assert len(every) >= 6
    with pytest.raises(InvalidArgument, match="pages are missing after page 3 of its"):
        read(tmp_path / "file", b"".join(every[:4] + every[5:]))


def test_recording_from_the_middle_of_a_broadcast_is_read(tmp_path):
    every = pages(encode_tones("-c:a", "libvorbis", output="a.ogg", seconds=5.0))
    assert len(read(tmp_path / "file", b"".join(every[:2] + every[3:]))) > 44_100


@pytest.mark.parametrize(("codec", "rate"), CODECS)
def test_chained_files_are_rejected(tmp_path, codec, rate):
    content = encode_tones("-c:a", codec, output="a.ogg", rate_hz=rate)
    with pytest.raises(InvalidArgument, match="several files one after another"):
        read(tmp_path / "file", content + content)


def test_two_audio_streams_are_rejected(tmp_path):
    content = ffmpeg("-f", "lavfi", "-i", "sine=d=0.5", "-map", "0", "-map", "0", "-c:a", "libvorbis", output="a.ogg")
    with pytest.raises(InvalidArgument, match=r"2 audio streams at once \(Vorbis and Vorbis\)"):
        read(tmp_path / "file", content)


@pytest.mark.parametrize(
    ("packet", "problem"),
    [
        (b"\x80theora" + bytes(35), "it contains no audio but Theora"),
        (b"unheard of", "it contains no audio but unknown data"),
        (b"Speex   " + bytes(72), "its header is damaged, or its encoding is not supported"),
    ],
)
def test_file_without_known_audio_is_rejected(tmp_path, packet, problem):
    with pytest.raises(InvalidArgument, match=f"it is an Ogg file, but .*{problem}"):
        read(tmp_path / "file", one_page_stream(packet))


def test_page_without_a_beginning_is_rejected(tmp_path):
    every = pages(encode_tones("-c:a", "libvorbis", output="a.ogg"))
    with pytest.raises(InvalidArgument, match="stream has no beginning"):
        read(tmp_path / "file", b"".join(every[1:]))


def test_what_follows_the_end_is_ignored(tmp_path):
    content = encode_tones("-c:a", "libvorbis", output="a.ogg")
    assert len(read(tmp_path / "file", content + b"TAG" + bytes(125))) == 22_050


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_opus_is_decoded_at_48_khz_whatever_its_source_had(tmp_path, rate):
    content = encode_tones("-c:a", "libopus", output="a.opus", rate_hz=48_000)
    first, *others = pages(content)
    at = first.index(b"OpusHead") + 12
    first = with_checksum(first[:at] + struct.pack("<I", rate) + first[at + 4 :])
    expected = read(tmp_path / "file", content)
    assert len(expected) == 24_000
    np.testing.assert_array_equal(read(tmp_path / "file", b"".join([first, *others])), expected)
    with open_source_file(tmp_path / "file", 600.0) as file:
        assert file.sample_rate_hz == 48_000
