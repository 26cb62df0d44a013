"""Files of every container with tags, and their tags as mutagen, ffmpeg, ffprobe and exiftool read them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import imageio_ffmpeg
import mutagen
import numpy as np
import soundfile

from export_service.tagging.containers import SampleLayout, encode_tags, overwrite_tags
from export_service.tagging.tags import FileTags

RATE, CHANNELS, FRAMES = 48_000, 2, 9601
LAYOUT = SampleLayout(RATE, CHANNELS, 24, FRAMES)
SAMPLES = (np.random.default_rng(1).standard_normal((FRAMES, CHANNELS)) * 0.1).astype(np.float32)
FORMATS = {
    "WAV": ("WAV", "PCM_24", ".wav"),
    "RF64": ("RF64", "PCM_24", ".wav"),
    "AIFF": ("AIFF", "PCM_24", ".aiff"),
    "CAF": ("CAF", "PCM_24", ".caf"),
    "W64": ("W64", "PCM_24", ".w64"),
    "FLAC": ("FLAC", "PCM_24", ".flac"),
    "MP3": ("MP3", "MPEG_LAYER_III", ".mp3"),
    "VORBIS": ("OGG", "VORBIS", ".ogg"),
    "OPUS": ("OGG", "OPUS", ".opus"),
    "M4A": ("M4A", "AAC", ".m4a"),
}
"""Name → container, encoding and extension."""
CONTAINERS = {"RF64": "WAV", "VORBIS": "OGG", "OPUS": "OGG"}
"""Name → the container whose tags the file has, if it is another."""
RESERVING = ("WAV", "FLAC", "OGG", "MP3")
EXIFTOOL_READS = ("WAV", "RF64", "AIFF", "FLAC", "MP3", "VORBIS", "OPUS", "M4A")
MUTAGEN_READS = ("WAV", "AIFF", "FLAC", "MP3", "VORBIS", "OPUS", "M4A")

ID3_NAMES = {"title": "TIT2", "artist": "TPE1", "album": "TALB", "genre": "TCON", "comment": "COMM::eng"} | {
    "bpm": "TBPM",
    "key": "TKEY",
    "license": "TCOP",
}
MP4_NAMES = {
    "title": "\xa9nam",
    "artist": "\xa9ART",
    "album": "\xa9alb",
    "genre": "\xa9gen",
    "comment": "\xa9cmt",
    "bpm": "tmpo",
    "key": "----:com.apple.iTunes:initialkey",
    "license": "cprt",
}
VORBIS_NAMES = {name: name for name in ("title", "artist", "album", "genre", "comment", "bpm", "license")} | {
    "key": "initialkey"
}
FFMPEG_NAMES = {
    "comments": "comment",
    "copyright": "license",
    "tbpm": "bpm",
    "tempo": "bpm",
    "tkey": "key",
    "key signature": "key",
    "initialkey": "key",
}
EXIFTOOL_NAMES = {
    "Title": "title",
    "Artist": "artist",
    "Album": "album",
    "Genre": "genre",
    "Comment": "comment",
    "BeatsPerMinute": "bpm",
    "Bpm": "bpm",
    "InitialKey": "key",
    "Initialkey": "key",
}


def write_plain(path: Path, kind: str, placeholder: int = 0) -> Path:
    """Writes the samples without tags, but with the space for them."""
    container, encoding, _ = FORMATS[kind]
    if container == "M4A":
        return _write_m4a(path)
    with soundfile.SoundFile(path, "w", RATE, CHANNELS, encoding, format=container) as file:
        if placeholder:
            file.title = "~" * placeholder
        file.write(SAMPLES)
    return path


def write_tagged(path: Path, kind: str, tags: FileTags) -> Path:
    """Writes a file with tags, as export does."""
    container = CONTAINERS.get(kind, kind)
    encoded = encode_tags(container, tags, LAYOUT, None)
    write_plain(path, kind, len(encoded) if container in RESERVING else 0)
    overwrite_tags(path, container, tags, encoded, 7)
    return path


def _write_m4a(path: Path) -> Path:
    import av

    with av.open(path, "w", options={"fflags": "+bitexact"}) as file:
        stream = file.add_stream("aac", rate=RATE, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(SAMPLES.T), format="fltp", layout="stereo")
        frame.sample_rate = RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)
    return path


def read_with_mutagen(path: Path) -> dict[str, str]:
    """Returns the tags by our names."""
    tags = mutagen.File(path).tags
    names = next(names for names in (ID3_NAMES, VORBIS_NAMES, MP4_NAMES) if names["title"] in tags)
    return {ours: _to_text(tags[theirs]) for ours, theirs in names.items() if theirs in tags}


def _to_text(value: object) -> str:
    if isinstance(value, list):
        [value] = value
    return value.decode() if isinstance(value, bytes) else str(value)


def read_with_ffmpeg(paths: Sequence[Path]) -> list[dict[str, str]]:
    """Returns the tags of each file by our names, where it has one."""
    inputs = [argument for path in paths for argument in ("-i", path)]
    outputs, source = [], "0:s:0" if paths[0].suffix in (".ogg", ".opus") else "0"
    for number, path in enumerate(paths):
        outputs += ["-map_metadata", source.replace("0", str(number), 1), "-f", "ffmetadata", f"{path}.txt"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *inputs, *outputs]
    subprocess.run(command, check=True, capture_output=True)
    return [_parse_ffmetadata(Path(f"{path}.txt").read_text(errors="replace")) for path in paths]


def _parse_ffmetadata(text: str) -> dict[str, str]:
    pairs = re.findall(r"^((?:[^\\=\n]|\\.)+)=((?:[^\\\n]|\\[\s\S])*)$", text.partition("[CHAPTER]")[0], re.MULTILINE)
    unescaped = ((re.sub(r"\\([\s\S])", r"\1", part) for part in pair) for pair in pairs)
    return {FFMPEG_NAMES.get(name.lower(), name.lower()): value for name, value in unescaped}


def read_with_ffprobe(path: Path) -> dict[str, str]:
    """Returns the tags by our names, where it has one."""
    command = ["ffprobe", "-v", "error", "-show_entries", "format_tags:stream_tags", "-of", "json", path]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    tags = {**found["streams"][0].get("tags", {}), **found["format"].get("tags", {})}
    return {FFMPEG_NAMES.get(name.lower(), name.lower()): value for name, value in tags.items()}


def read_with_exiftool(paths: Sequence[Path]) -> list[dict[str, set[str]]]:
    """Returns all values that each file has for our names, in all its chunks except an ID3 tag of version 1."""
    command = ["exiftool", "-j", "-G1", "-a", *paths]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = []
    for tags in json.loads(done.stdout):
        values: dict[str, set[str]] = {}
        for name, value in tags.items():
            group, _, plain = name.rpartition(":")
            if plain in EXIFTOOL_NAMES and group != "ID3v1":
                values.setdefault(EXIFTOOL_NAMES[plain], set()).add(str(value))
        found.append(values)
    return found
