"""Files that libsndfile does not read: with the extra "m4a" they are decoded, without it the way out is named."""

from __future__ import annotations

import struct
import sys

import numpy as np
import pytest

from dgx_music.errors import InvalidArgument
from export_service.decoding.source_file import open_source_file
from tests.support.foreign_files import decode, encode_tones, ffmpeg, tones

TONE = ["-f", "lavfi", "-i", "sine=440:d=0.5"]
PICTURE = ["-f", "lavfi", "-i", "testsrc=s=64x64:d=0.5"]


def read(path, content, max_seconds=600.0):
    path.write_bytes(content)
    with open_source_file(path, max_seconds) as file:
        return file, np.concatenate(list(file.blocks()))


@pytest.mark.parametrize(
    ("output", "options", "description", "padding"),
    [
        ("a.m4a", [], "AAC (MPEG-4)", 0),
        ("a.m4a", ["-c:a", "alac"], "ALAC (MPEG-4)", 0),
        ("a.m4a", ["-movflags", "frag_keyframe+empty_moov"], "AAC (MPEG-4)", 1_024),
        ("a.mp4", ["-c:a", "flac"], "FLAC (MPEG-4)", 0),
        ("a.mp4", ["-c:a", "libopus", "-ar", "48000"], "Opus (MPEG-4)", 0),
        ("a.mov", ["-c:a", "pcm_s24be"], "PCM-S24BE (MPEG-4)", 0),
        ("a.aac", [], "AAC (ADTS)", 2_048),
        ("a.wma", [], "WMAV2 (Windows Media)", 2_048),
        ("a.wv", [], "WavPack", 0),
        ("a.tta", [], "TTA", 0),
        ("a.flac", ["-sample_fmt", "s32", "-bits_per_raw_sample", "32", "-strict", "experimental"], "FLAC", 0),
        ("a.ac3", [], "AC-3", 1_536),
        ("a.webm", ["-c:a", "libopus", "-ar", "48000"], "Opus (Matroska)", 0),
        ("a.mka", ["-c:a", "libvorbis"], "Vorbis (Matroska)", 0),
        ("a.ts", ["-c:a", "aac"], "AAC (MPEG-TS)", 2_048),
        ("a.flv", ["-c:a", "aac"], "AAC (FLV)", 2_048),
        ("a.avi", [], "MP3 (AVI)", 2_304),
        ("a.caf", ["-c:a", "alac"], "ALAC (CAF)", 0),
        ("a.wav", ["-c:a", "adpcm_yamaha"], "ADPCM-YAMAHA (WAV)", 2_048),
        ("a.wav", ["-c:a", "mp3", "-q:a", "2"], "MP3 (WAV)", 2_304),
    ],
)
def test_file_has_the_samples_that_ffmpeg_decodes(tmp_path, output, options, description, padding):
    content = encode_tones(*options, output=output)
    file, samples = read(tmp_path / "file", content)
    assert (file.description, file.channels) == (description, 2)
    # Of WMA, ffmpeg writes less than it gets.
    assert -2_048 * ("WMA" in description) <= len(samples) - 0.5 * file.sample_rate_hz <= padding
    expected = decode(content)
    compared = min(len(samples), len(expected))
    np.testing.assert_allclose(samples[:compared], expected[:compared], atol=1e-4)
    assert compared > 20_000


def test_amr_is_read(tmp_path):
    content = ffmpeg(*TONE, "-ar", "8000", "-c:a", "libopencore_amrnb", output="a.amr")
    file, _ = read(tmp_path / "file", content)
    assert (file.description, file.sample_rate_hz, file.channels) == ("AMR", 8_000, 1)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.avi"])
def test_sound_of_video_is_read(tmp_path, name):
    file, _ = read(tmp_path / "file", ffmpeg(*PICTURE, *TONE, "-shortest", output=name))
    assert file.channels == 1
    assert file.frames_read >= 0.45 * file.sample_rate_hz


def test_sound_beside_theora_is_read(tmp_path):
    content = ffmpeg(*PICTURE, *TONE, "-c:v", "libtheora", "-c:a", "libvorbis", output="a.ogv")
    file, _ = read(tmp_path / "file", content)
    assert file.description == "Vorbis (Ogg)"


def test_m4a_behind_id3_and_with_cover_and_latin_tags_is_read(tmp_path):
    (tmp_path / "cover.png").write_bytes(ffmpeg(*PICTURE, "-frames:v", "1", output="a.png"))
    cover = ["-i", str(tmp_path / "cover.png"), "-map", "0", "-map", "1", "-c:v", "copy"]
    content = ffmpeg(*TONE, *cover, "-disposition:v", "attached_pic", "-metadata", "title=Cafe", output="a.m4a")
    content = content.replace(b"Cafe", b"Caf\xe9")  # Not UTF-8.
    file, _ = read(tmp_path / "file", b"ID3\4\0\0\0\0\2\0" + bytes(256) + content)
    assert (file.description, file.frames_read) == ("AAC (MPEG-4)", 22_050)


@pytest.mark.parametrize(
    ("codec", "expected"), [("pcm_u8", 2**-6), ("pcm_s16le", 2**-14), ("pcm_s32le", 2**-22), ("pcm_f64le", 2**-22)]
)
def test_samples_of_any_type_are_scaled_to_full_scale(tmp_path, codec, expected):
    _, samples = read(tmp_path / "file", encode_tones("-c:a", codec, output="a.mov"))
    np.testing.assert_allclose(samples, tones(), atol=expected)


def test_video_without_sound_is_rejected(tmp_path):
    with pytest.raises(InvalidArgument, match=r"it is an MPEG-4 file .*, but it contains no audio track"):
        read(tmp_path / "file", ffmpeg(*PICTURE, output="a.mp4"))


def test_file_with_more_audio_than_its_header_says_is_rejected(tmp_path):
    content = bytearray(encode_tones("-c:a", "pcm_s16le", output="a.mov", seconds=2.0))
    at = content.index(b"mdhd") + 20
    assert content[at : at + 4] == struct.pack(">I", 88_200)
    content[at : at + 4] = struct.pack(">I", 22_050)
    with pytest.raises(InvalidArgument, match="its header says that it ends there, but there is more"):
        read(tmp_path / "file", bytes(content))


def test_several_tracks_are_rejected(tmp_path):
    content = ffmpeg(*TONE, "-map", "0", "-map", "0", output="a.m4a")
    with pytest.raises(InvalidArgument, match="it contains 2 audio tracks; extract the one to use"):
        read(tmp_path / "file", content)


def test_change_of_sample_rate_is_rejected(tmp_path):
    content = encode_tones(output="a.aac") + encode_tones(output="a.aac", rate_hz=48_000)
    with pytest.raises(InvalidArgument, match="its audio changes there to 48000 Hz, stereo; convert it first"):
        read(tmp_path / "file", content)


def test_limit_holds_while_decoding(tmp_path):
    with pytest.raises(InvalidArgument, match=r"must be 0\.1 to 0\.4 s of audio, and is longer"):
        read(tmp_path / "file", encode_tones(output="a.aac"), max_seconds=0.4)


@pytest.mark.parametrize("output", ["a.m4a", "a.wma", "a.wv", "a.webm", "a.wav"])
def test_without_the_extra_the_error_says_what_to_do(tmp_path, monkeypatch, output):
    monkeypatch.setitem(sys.modules, "av", None)
    options = ["-c:a", "adpcm_yamaha"] if output == "a.wav" else []
    with pytest.raises(InvalidArgument, match=r"convert the file, .*`ffmpeg -i INPUT OUTPUT.flac`.*dgx-music\[m4a\]"):
        read(tmp_path / "file", encode_tones(*options, output=output))


@pytest.mark.parametrize("output", ["a.wav", "a.flac", "a.mp3", "a.ogg", "a.oga", "a.caf", "a.aiff"])
def test_usual_formats_need_no_extra(tmp_path, monkeypatch, output):
    monkeypatch.setitem(sys.modules, "av", None)
    file, _ = read(tmp_path / "file", encode_tones(output=output))
    assert file.frames_read == 22_050
