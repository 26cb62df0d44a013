"""Files with other tags, as mutagen and ffmpeg read them, and their audio, which must not change."""

from __future__ import annotations

import base64
import subprocess
from dataclasses import replace

import imageio_ffmpeg
import mutagen
import numpy as np
import pytest
from mutagen.flac import Picture

from dgx_music.limits import MAX_COVER_BYTES
from export_service.formats import writer
from export_service.formats.codecs import CODECS
from export_service.formats.reader import open_sequential
from export_service.formats.writer import AudioFile
from export_service.retagging.tag_replacement import write_with_tags
from export_service.tagging.containers import SampleLayout, read_tags
from export_service.tagging.cover import WITHOUT_COVER, parse_cover
from export_service.tagging.sections import Section
from export_service.tagging.tags import FileTags
from service_runtime.audio.output_options import FileFormat, PublicationTags
from tests.support import pictures, signals
from tests.support.tag_readers import read_with_mutagen

ID = "12345678-9abc-def0-1234-56789abcdef0"
RATE = 48_000
SECTIONS = (Section("intro", 0, 12_000), Section("drop", 12_000, 24_000))
TAGS = FileTags(ID, 1, "dgx-music 0.1", "sketch 1", "house", 124.5, "C minor", prompt="p", sections=SECTIONS)
EDITED = replace(TAGS, publication=PublicationTags("Überraschung 🎵", "Ørsted", "Sol"))
COVER = parse_cover(pictures.png(), "cover")
LARGE_COVER = parse_cover(pictures.jpeg().ljust(MAX_COVER_BYTES, b"\0"), "cover")
PCM = ("WAV_PCM_24", "WAV_FLOAT", "FLAC_16", "AIFF_PCM_24", "AIFF_FLOAT", "CAF_PCM_24", "W64_PCM_16")
LOSSY = ("MP3", "OGG_VORBIS", "OGG_OPUS", "M4A_AAC")
CASES = {name: FileFormat[name] for name in (*PCM, *LOSSY)} | {"RF64": FileFormat.WAV_PCM_24}


@pytest.fixture(params=CASES)
def original(request, tmp_path, monkeypatch):
    """A file with tags in one format, and the name of its container."""
    if request.param == "RF64":
        monkeypatch.setattr(writer, "MAX_WAV_BYTES", 1000)
    file_format = CASES[request.param]
    path = tmp_path / f"original{CODECS[file_format].extension}"
    samples = signals.music(RATE, 0.5)
    AudioFile(file_format, RATE, 2, len(samples), TAGS, 7).write(path, [samples], -1.0)
    return path, CODECS[file_format].container


def retag(path, container, tags, name="edited"):
    edited = path.with_stem(name)
    with path.open("rb") as source:
        write_with_tags(source, edited, container, tags, SampleLayout(RATE, 2, 0, 24_000))
    return edited


def samples_of(path):
    with open_sequential(path) as file:
        return file.read()


def packet_hash(path):
    """SHA-256 of the encoded audio, as ffmpeg takes it out of the file; fails if ffmpeg finds fault with the file."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-map", "0:a", "-c", "copy"]
    done = subprocess.run([*command, "-f", "streamhash", "-"], capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout


def read_cover(path):
    """The bytes of the cover, if there is one, as mutagen reads it."""
    file = mutagen.File(path)
    match path.suffix:
        case ".flac":
            covers = [picture.data for picture in file.pictures]
        case ".m4a":
            covers = [bytes(cover) for cover in file.tags.get("covr", [])]
        case ".ogg" | ".opus":
            covers = [Picture(base64.b64decode(text)).data for text in file.tags.get("metadata_block_picture", [])]
        case _:
            covers = [picture.data for picture in file.tags.getall("APIC")]
    return covers[0] if covers else None


@pytest.mark.parametrize("cover", [None, COVER, LARGE_COVER], ids=["plain", "cover", "large_cover"])
def test_tags_change_and_audio_does_not(original, cover):
    path, container = original
    if cover is not None and container in WITHOUT_COVER:
        return
    tags = replace(EDITED, cover=cover)
    edited = retag(path, container, tags)
    np.testing.assert_array_equal(samples_of(edited), samples_of(path))
    assert packet_hash(edited) == packet_hash(path)
    read = read_tags(edited, ID)
    original_sections = read_tags(path, ID).sections
    assert read == replace(tags, sections=original_sections)
    if container not in WITHOUT_COVER and path.read_bytes()[:4] != b"RF64":
        found = read_with_mutagen(edited)
        assert (found["title"], found["artist"], found["album"]) == (tags.title, tags.artist, tags.album)
        assert read_cover(edited) == (cover and cover.data)


def test_same_edit_gives_same_bytes_and_can_be_undone(original):
    path, container = original
    tags = EDITED if container in WITHOUT_COVER else replace(EDITED, cover=COVER)
    first = retag(path, container, tags)
    second = retag(first, container, tags, "second")
    assert second.read_bytes() == first.read_bytes()
    undone = retag(second, container, TAGS, "undone")
    assert undone.read_bytes() == retag(path, container, TAGS, "same").read_bytes()
    np.testing.assert_array_equal(samples_of(undone), samples_of(path))
