"""The content of tags, and their encoding in each format as independent readers see it."""

from __future__ import annotations

import math
import shutil
import subprocess
from dataclasses import replace

import mutagen
import numpy as np
import pytest
import soundfile
from mutagen.id3 import ID3

from dgx_music.errors import InvalidArgument
from export_service.analysis.analyzer import Analysis
from export_service.analysis.key import Key
from export_service.analysis.tempo import Tempo
from export_service.formats.codecs import CODECS
from export_service.formats.reader import open_sequential
from export_service.formats.writer import AudioFile
from export_service.tagging.containers import read_comment, read_tags
from export_service.tagging.musical_key import abbreviate_key, tonic_pitch_class
from export_service.tagging.sections import Section
from export_service.tagging.tags import (
    COMMENT_PATTERN,
    MAX_COMMENT_BYTES,
    FileTags,
    Tags,
    build_file_tags,
    clean_tags,
    restore_tags,
)
from service_runtime.audio.output_options import FileFormat, PublicationTags

ID = "12345678-9abc-def0-1234-56789abcdef0"
TAGS = Tags("sketch", "1.0", "house", 124.5, "C minor", "CC0", "a beat; at night")
ANALYSIS = Analysis(Tempo(119.98765, 0.5, 60.0), Key("Bb minor", 0.9))
FILE_TAGS = FileTags(
    ID, 2, "dgx-music 0.1", "sketch 1.0", "Hôuse 夜", 124.5, "Bb minor", "CC-BY-4.0", "ein Lied für 夜; leise"
)
WAV = [FileFormat.WAV_PCM_24, FileFormat.WAV_PCM_16, FileFormat.WAV_FLOAT]
VORBIS_COMMENT_FORMATS = [FileFormat.FLAC_24, FileFormat.OGG_VORBIS, FileFormat.OGG_OPUS]


def write_file(path, format_, tags=FILE_TAGS, frames=48_000):
    samples = np.random.default_rng(1).standard_normal((frames, 2)).astype(np.float32) * 0.1
    AudioFile(format_, 48_000, 2, frames, tags, 7).write(path, [samples], 0.0)
    return path


def test_tags_disclose_ai_generation():
    tags = build_file_tags(clean_tags(TAGS, "tags"), ID, 2, "dgx-music 0.1", ANALYSIS)
    assert tags.title == "house, C minor, 124.5 BPM"
    assert tags.artist == "sketch 1.0 (AI)"
    assert tags.description == f"AI-generated music; generation={ID}; generator=dgx-music 0.1; model=sketch 1.0"
    assert tags.comment == (
        f"AI-generated music; generation={ID}; attempt=2; bpm=124.5; key=C minor; generator=dgx-music 0.1; "
        "model=sketch 1.0; genre=house; license=CC0; prompt=a beat; at night"
    )


def test_unknown_tempo_and_key_come_from_analysis():
    unknown = replace(TAGS, bpm=0.0, key="")
    tags = build_file_tags(unknown, ID, 1, "x", ANALYSIS)
    assert (tags.bpm, tags.key) == (119.99, "Bb minor")
    assert tags.title == "house, Bb minor, 120 BPM"
    tags = build_file_tags(unknown, ID, 1, "x", Analysis(None, None))
    assert (tags.bpm, tags.key) == (0.0, "")
    assert tags.title == "house"
    assert "bpm" not in tags.comment
    assert "key" not in tags.comment


def test_parse_comment_restores_tags():
    cleaned = clean_tags(replace(TAGS, model_name="a; attempt=9; bpm=1", genre="b=c"), "tags")
    tags = build_file_tags(cleaned, ID, 3, "dgx-music 0.1")
    assert tags.model == "a, attempt=9, bpm=1 1.0"
    assert FileTags.parse_comment(tags.comment, ID) == tags
    assert COMMENT_PATTERN.match(tags.comment)[2] == "3"
    bare = FileTags(ID, 1, "x", "m")
    assert FileTags.parse_comment(bare.comment, ID) == bare
    assert FileTags.parse_comment("by hand", ID) == FileTags(ID, 0, "", "unknown model")


def test_publication_replaces_title_and_artist_but_not_the_disclosure():
    own = build_file_tags(clean_tags(TAGS, "tags"), ID, 2, "x", publication=PublicationTags("", "\0A\n B", ""))
    assert (own.title, own.artist, own.album) == ("house, C minor, 124.5 BPM", "A B", "")
    publication = PublicationTags("T\u202e; prompt=x", "A B", "夜" * 300)
    full = build_file_tags(clean_tags(TAGS, "tags"), ID, 2, "x", publication=publication)
    assert (full.title, full.artist, full.album) == ("T; prompt=x", "A B", "夜" * 200)
    assert full.comment == own.comment
    assert full.comment.startswith(f"AI-generated music; generation={ID}; attempt=2;")


@pytest.mark.parametrize(
    "publication",
    [
        PublicationTags(),
        PublicationTags("T; prompt=x", "A=b", "B"),
        PublicationTags(album="only"),
        PublicationTags(artist="only"),
    ],
)
def test_restore_tags(publication):
    tags = replace(FILE_TAGS, publication=publication)
    texts = {name: text for name in ("title", "artist", "album", "comment") if (text := getattr(tags, name))}
    assert restore_tags(texts, ID) == tags


def test_section_names_are_cleaned():
    sections = (Section("A\0\nB " + "夜" * 300, 0, 10),)
    [section] = build_file_tags(TAGS, ID, 1, "x", sections=sections).sections
    assert (section.name, section.start_frame, section.end_frame) == ("A B " + "夜" * 196, 0, 10)


def test_long_comment_is_truncated():
    words = clean_tags(Tags("夜" * 300, "1", "夜" * 300, 90, "夜" * 300, "CC0", "夜" * 3000), "tags")
    comment = build_file_tags(words, ID, 7, "dgx-music 0.1").comment
    assert MAX_COMMENT_BYTES - 3 < len(comment.encode()) <= MAX_COMMENT_BYTES
    assert FileTags.parse_comment(comment, ID).attempt == 7


def test_clean_tags_repairs_text():
    cleaned = clean_tags(Tags("", "1\x00\r\n2", "\u202elo-fi\t " + "x" * 500, 90, "  C   minor ", "", "a\nb"), "tags")
    assert cleaned.model_name == "unknown model"
    assert cleaned.model_version == "1 2"
    assert cleaned.genre.startswith("lo-fi xxx")
    assert len(cleaned.genre) == 200
    assert (cleaned.key, cleaned.prompt) == ("C minor", "a b")


@pytest.mark.parametrize("bpm", [math.nan, math.inf, -1.0, 1001.0])
def test_clean_tags_rejects_invalid_tempo(bpm):
    with pytest.raises(InvalidArgument) as raised:
        clean_tags(Tags("a", "", "", bpm, "", ""), "header.tags")
    assert raised.value.field == "header.tags.bpm"


@pytest.mark.parametrize(
    ("key", "short", "tonic"),
    [
        ("C major", "C", 0),
        ("C minor", "Cm", 0),
        ("Cb major", "Cb", 11),
        ("B# minor", "B#m", 0),
        ("F# minor", "F#m", 6),
        ("Bbm", "Bbm", 10),
        ("G", "G", 7),
        ("E dorian", "", None),
        ("H minor", "", None),
        ("", "", None),
    ],
)
def test_abbreviate_key_and_pitch_class(key, short, tonic):
    assert (abbreviate_key(key), tonic_pitch_class(key)) == (short, tonic)


@pytest.mark.parametrize("format_", FileFormat)
def test_tags_of_every_format_are_read_back(tmp_path, format_):
    assert read_tags(write_file(tmp_path / "a", format_), ID) == FILE_TAGS


@pytest.mark.parametrize("format_", [*WAV, *VORBIS_COMMENT_FORMATS, FileFormat.MP3])
def test_soundfile_reads_tags(tmp_path, format_):
    with soundfile.SoundFile(write_file(tmp_path / "a", format_)) as file:
        assert FileTags.parse_comment(file.comment, ID) == FILE_TAGS
        assert (file.title, file.artist, file.genre) == (FILE_TAGS.title, FILE_TAGS.artist, FILE_TAGS.genre)
        assert not file.date


@pytest.mark.parametrize("format_", FileFormat)
def test_long_comment_is_read_back(tmp_path, format_):
    long = replace(FILE_TAGS, model="夜" * 300, prompt="夜" * 2000)
    path = write_file(tmp_path / "a", format_, long)
    assert read_comment(path) == long.comment
    with open_sequential(path) as file:
        assert len(file.read(50_000)) == pytest.approx(48_000, abs=0 if "M4A" not in format_.name else 2048)


def test_id3_frames_contain_tempo_and_key(tmp_path):
    path = write_file(tmp_path / "a.mp3", FileFormat.MP3)
    tags = ID3(path)
    assert tags.version == (2, 3, 0)
    found = {name: str(tags[name]) for name in ("TIT2", "TPE1", "TCON", "TCOP", "TSSE", "TBPM", "TKEY")}
    assert found == {
        "TIT2": FILE_TAGS.title,
        "TPE1": FILE_TAGS.artist,
        "TCON": FILE_TAGS.genre,
        "TCOP": FILE_TAGS.license,
        "TSSE": FILE_TAGS.generator,
        "TBPM": "124",  # Whole by the standard, half to even.
        "TKEY": "Bbm",
    }
    assert str(tags["COMM::eng"]) == FILE_TAGS.comment
    assert b"~~~" not in path.read_bytes()
    assert path.read_bytes()[-128:].startswith(b"TAGH\xf4use ?, Bb minor, 124.5 BPM\0")


@pytest.mark.parametrize(("genre", "version"), [("house", 3), ("Hôuse 夜", 3), ("house 🌙", 4)])
def test_id3_version_suits_the_text(tmp_path, genre, version):
    path = write_file(tmp_path / "a.mp3", FileFormat.MP3, replace(FILE_TAGS, genre=genre))
    tags = ID3(path)
    assert tags.version == (2, version, 0)
    assert str(tags["TCON"]) == genre


def test_id3_version_1_tag(tmp_path):
    path = write_file(tmp_path / "a.mp3", FileFormat.MP3, replace(FILE_TAGS, genre="house"))
    ID3(path).delete(path, delete_v1=False)
    tags = ID3(path)
    assert str(tags["TIT2"]) == "house, Bb minor, 124.5 BPM"[:30]
    assert str(tags["COMM:ID3v1 Comment:eng"]).startswith("AI-generated music; generation")


@pytest.mark.parametrize("format_", VORBIS_COMMENT_FORMATS)
def test_vorbis_comments_contain_tempo_and_key(tmp_path, format_):
    path = write_file(tmp_path / f"a{CODECS[format_].extension}", format_)
    read = mutagen.File(path)
    assert dict(read.tags) == {
        "title": [FILE_TAGS.title],
        "artist": [FILE_TAGS.artist],
        "comment": [FILE_TAGS.comment],
        "genre": [FILE_TAGS.genre],
        "license": [FILE_TAGS.license],
        "encoder": [FILE_TAGS.generator],
        "bpm": ["124.5"],
        "initialkey": ["Bbm"],
    }
    assert any(name in read.tags.vendor for name in ("libFLAC", "libVorbis", "libopus"))
    assert read.info.length == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("format_", [*VORBIS_COMMENT_FORMATS, FileFormat.MP3])
def test_unknown_values_are_left_out(tmp_path, format_):
    read = mutagen.File(write_file(tmp_path / f"a{CODECS[format_].extension}", format_, FileTags(ID, 1, "x", "m")))
    assert not {"bpm", "initialkey", "genre", "license", "TBPM", "TKEY", "TCON", "TCOP"} & set(read.tags.keys())


@pytest.mark.skipif(shutil.which("flac") is None, reason="flac is not installed")
def test_flac_tool_verifies_file(tmp_path):
    path = write_file(tmp_path / "a.flac", FileFormat.FLAC_24)
    subprocess.run(["flac", "--test", "--warnings-as-errors", path], capture_output=True, check=True)
