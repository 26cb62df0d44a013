"""Intact files to damage: audio of every kind that can be uploaded, files of the library, and pictures."""

from __future__ import annotations

import io
from functools import cache

import soundfile

from dgx_music.audio.v1.audio_pb2 import FileFormat
from tests.support.foreign_files import PIPED, encode_tones, tones
from tests.support.pictures import jpeg, png

SECONDS = 0.3
FFMPEG_FILES: tuple[tuple[str, ...], ...] = (
    ("a.mp3",),
    ("a.mp3", "-b:a", "64k", "-write_xing", "0"),
    ("a.m4a",),
    ("a.m4a", "-c:a", "alac"),
    ("a.mp4", "-movflags", "+frag_keyframe+empty_moov"),
    ("a.aac",),
    ("a.wav", "-c:a", "adpcm_ima_wav"),
    ("a.wav", "-c:a", "adpcm_ms"),
    ("a.wav", "-c:a", "pcm_f32le", "-rf64", "always"),
    ("a.wav", "-write_bext", "1", "-metadata", "description=bext", "-metadata", "title=Title"),
    ("a.ogg", "-c:a", "libvorbis", "-metadata", "title=Title"),
    ("a.opus",),
    ("a.ogg", "-c:a", "flac"),
    ("a.flac",),
    ("a.wv",),
    ("a.tta",),
    ("a.mka", "-c:a", "pcm_s16le"),
    ("a.webm", "-c:a", "libopus"),
    ("a.wma",),
    ("a.avi", "-c:a", "pcm_s16le"),
    ("a.flv", "-c:a", "aac"),
    ("a.ts", "-c:a", "mp2"),
    ("a.ac3",),
    ("a.voc",),
    ("a.caf", "-c:a", "alac"),
    ("a.aiff", "-write_id3v2", "1", "-metadata", "title=Title"),
)
"""The name of the file, and the options of ffmpeg."""
SNDFILE_FILES = (
    ("WAV", "PCM_24"),
    ("WAV", "FLOAT"),
    ("WAV", "GSM610"),
    ("WAVEX", "PCM_16"),
    ("RF64", "PCM_24"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_24"),
    ("AIFF", "FLOAT"),
    ("CAF", "PCM_16"),
    ("AU", "PCM_16"),
    ("FLAC", "PCM_24"),
)
"""libsndfile's names of container and encoding."""
LIBRARY_FORMATS = tuple(name for name, value in FileFormat.items() if value)


@cache
def uploads() -> dict[str, bytes]:
    """Returns files that can be uploaded, by name."""
    files = {}
    for output, *options in FFMPEG_FILES:
        files[" ".join([output, *options])] = encode_tones(*options, output=output, seconds=SECONDS)
    for container, subtype in SNDFILE_FILES:
        rate = 8_000 if subtype == "GSM610" else 44_100
        file = io.BytesIO()
        soundfile.write(file, tones(1, SECONDS, rate), rate, format=container, subtype=subtype)
        files[f"{container} {subtype}"] = file.getvalue()
    files["piped WAV"] = encode_tones("-f", "wav", output=PIPED, seconds=SECONDS)
    return files


@cache
def pictures() -> dict[str, bytes]:
    """Returns pictures, by name."""
    return {"PNG": png(40, 30), "JPEG": jpeg(40, 30), "progressive JPEG": jpeg(40, 30, progressive=True)}
