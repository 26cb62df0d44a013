"""ID3 tags: of MP3 files, and in a chunk of WAV and AIFF files.

The version is 2.3, which every player reads, unless a text has characters beyond the Basic Multilingual Plane, such as
emoji. They would be surrogate pairs there, which some readers show as two unknown characters; version 2.4 has UTF-8.
"""

from __future__ import annotations

import os
import struct
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from export_service.tagging.cover import Cover, parse_cover
from export_service.tagging.musical_key import abbreviate_key
from export_service.tagging.sections import Section
from export_service.tagging.tags import FileTags

HEADER = struct.Struct(">3sBBB4s")
"""Identifier, version, revision, flags, and the size of all frames as four groups of seven bits."""
FRAME = struct.Struct(">4s4sH")
"""Name, size of the content, flags."""
UTF_16_VERSION, UTF_8_VERSION = 3, 4
LATIN_1, UTF_16, UTF_8 = 0, 1, 3
ENCODINGS = ("latin-1", "utf-16", "utf-16-be", "utf-8")
"""By the byte in front of a text. A text in UTF-16 starts with a byte order mark."""
TEXT_FRAMES = {b"TIT2": "title", b"TPE1": "artist", b"TALB": "album"}
LANGUAGE = b"eng"
FRONT_COVER = b"\3"

CHAPTER_TIMES = struct.Struct(">IIII")
"""Start and end in milliseconds, and in bytes of the file, which are left unknown."""
UNKNOWN_OFFSET = 0xFFFF_FFFF
TOP_LEVEL_AND_ORDERED = 3
MAX_CHAPTERS = 255
"""A table of contents counts them in one byte."""

VERSION_1 = struct.Struct("<3s30s30s30s4s30sB")
"""Identifier, title, artist, album, year, comment, genre."""
NO_GENRE = 255


def encode_tag(tags: FileTags, sample_rate_hz: int) -> bytes:
    """Encodes the tags as a complete ID3v2 tag; unknown values are left out, and sections after the first 255."""
    sections = tags.sections[:MAX_CHAPTERS]
    texts = {
        b"TIT2": tags.title,
        b"TPE1": tags.artist,
        b"TALB": tags.album,
        b"TCON": tags.genre,
        b"TCOP": tags.license,
        b"TSSE": tags.generator,
        b"TBPM": f"{tags.bpm:.0f}" if tags.bpm else "",  # The standard requires an integer.
        b"TKEY": abbreviate_key(tags.key),
    }
    everything = "".join([*texts.values(), tags.comment, *(section.name for section in sections)])
    version = UTF_8_VERSION if any(ord(character) > 0xFFFF for character in everything) else UTF_16_VERSION
    encoder = _FrameEncoder(version)
    frames = [encoder.text(name, text) for name, text in texts.items() if text]
    frames.append(encoder.comment(tags.comment))
    if tags.cover is not None:
        picture = bytes([LATIN_1]) + tags.cover.media_type.encode() + b"\0" + FRONT_COVER + b"\0" + tags.cover.data
        frames.append(encoder.frame(b"APIC", picture))
    if sections:
        frames += encoder.chapters(sections, sample_rate_hz)
    content = b"".join(frames)
    # Padding: exiftool expects room for another frame's header. An even length, as chunks have.
    content += bytes(FRAME.size + len(content) % 2)
    return _encode_header(version, len(content)) + content


def encode_version_1(tags: FileTags) -> bytes:
    """Returns the tag of 128 bytes that ends an MP3 file, in Latin-1."""
    texts = (tags.title, tags.artist, tags.album, "", tags.comment)
    encoded = (unicodedata.normalize("NFC", text).encode("latin-1", "replace") for text in texts)
    return VERSION_1.pack(b"TAG", *encoded, NO_GENRE)


def replace_tags(path: Path, tag: bytes, tags: FileTags) -> None:
    """Overwrites the tag at the start of the file, which must be longer, and its version 1 tag. Raises OSError."""
    with path.open("r+b") as file:
        *_, size = HEADER.unpack(file.read(HEADER.size))
        space = decode_size(size)
        file.seek(0)
        _, version, *_ = HEADER.unpack_from(tag)
        file.write(_encode_header(version, space) + tag[HEADER.size :].ljust(space, b"\0"))
        file.seek(-VERSION_1.size, os.SEEK_END)
        file.write(encode_version_1(tags))


def find_end(file: BinaryIO) -> int:
    """Returns the offset at which a tag at the start of the file ends; 0 if there is none."""
    file.seek(0)
    header = file.read(HEADER.size)
    return HEADER.size + decode_size(HEADER.unpack(header)[-1]) if header.startswith(b"ID3") else 0


def read_tag(path: Path) -> bytes:
    """Returns the tag at the start of the file; empty if there is none. Raises OSError."""
    with path.open("rb") as file:
        end = find_end(file)
        file.seek(0)
        return file.read(end)


def read_texts(tag: bytes) -> dict[str, str]:
    """Returns title, artist, album and comment of a tag, as far as it has them."""
    texts = {}
    for name, content in _iter_frames(tag):
        if name in TEXT_FRAMES:
            texts[TEXT_FRAMES[name]] = _decode_texts(content[0], content[1:])[0]
        elif name == b"COMM":
            description, comment, *_ = _decode_texts(content[0], content[1 + len(LANGUAGE) :])
            if not description:  # Taggers add one with the comment of the version 1 tag.
                texts["comment"] = comment
    return texts


def read_cover(tag: bytes) -> Cover | None:
    """Returns the cover of a tag that `encode_tag` returned."""
    content = dict(_iter_frames(tag)).get(b"APIC")
    return parse_cover(content.split(b"\0", 3)[3], "cover") if content else None


def read_sections(tag: bytes, sample_rate_hz: int) -> tuple[Section, ...]:
    """Returns the sections of a tag that `encode_tag` returned, to the nearest millisecond."""
    sections = []
    for name, content in _iter_frames(tag):
        if name == b"CHAP":
            times, start = content.index(b"\0") + 1, content.index(b"\0") + 1 + CHAPTER_TIMES.size
            frames = (round(ms * sample_rate_hz / 1000) for ms in CHAPTER_TIMES.unpack_from(content, times)[:2])
            _, title = next(_iter_frames(tag[: HEADER.size] + content[start:]))
            sections.append(Section(_decode_texts(title[0], title[1:])[0], *frames))
    return tuple(sections)


class _FrameEncoder:
    """Encodes the frames of one version."""

    def __init__(self, version: int) -> None:
        self._version = version

    def text(self, name: bytes, text: str) -> bytes:
        return self.frame(name, self._encode_texts(b"", text))

    def comment(self, text: str) -> bytes:
        return self.frame(b"COMM", self._encode_texts(LANGUAGE, "", text))

    def chapters(self, sections: tuple[Section, ...], sample_rate_hz: int) -> Iterator[bytes]:
        """Yields a table of contents and a frame for each chapter (ID3v2 Chapter Frame Addendum 1.0)."""
        ids = [f"chp{number}".encode() + b"\0" for number in range(len(sections))]
        yield self.frame(b"CTOC", b"toc\0" + bytes([TOP_LEVEL_AND_ORDERED, len(ids)]) + b"".join(ids))
        for chapter_id, section in zip(ids, sections, strict=True):
            bounds = (round(frame * 1000 / sample_rate_hz) for frame in (section.start_frame, section.end_frame))
            times = CHAPTER_TIMES.pack(*bounds, UNKNOWN_OFFSET, UNKNOWN_OFFSET)
            yield self.frame(b"CHAP", chapter_id + times + self.text(b"TIT2", section.name))

    def frame(self, name: bytes, content: bytes) -> bytes:
        size = len(content)
        return FRAME.pack(name, encode_size(size) if self._version == UTF_8_VERSION else size.to_bytes(4), 0) + content

    def _encode_texts(self, before: bytes, *texts: str) -> bytes:
        """Returns the encoding byte and the texts, separated by terminators."""
        encoding = UTF_8 if self._version == UTF_8_VERSION else UTF_16
        if all(ord(character) < 0x100 for text in texts for character in text):
            encoding = LATIN_1
        terminator = bytes(2 if encoding == UTF_16 else 1)
        encoded = [text.encode(ENCODINGS[encoding]) for text in texts]
        # Without it, exiftool ends a text at zeros on any byte, such as those within "A一" (41 00 00 4E).
        last = terminator if encoding == UTF_16 else b""
        return bytes([encoding]) + before + terminator.join(encoded) + last


def _decode_texts(encoding: int, content: bytes) -> list[str]:
    return content.decode(ENCODINGS[encoding], "replace").replace("\ufeff", "").split("\0")


def _iter_frames(tag: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields name and content of each frame, up to the padding."""
    _, version, *_ = HEADER.unpack_from(tag)
    position = HEADER.size
    while position + FRAME.size < len(tag) and tag[position]:
        name, size, _ = FRAME.unpack_from(tag, position)
        position += FRAME.size
        end = position + (decode_size(size) if version == UTF_8_VERSION else int.from_bytes(size))
        yield name, tag[position:end]
        position = end


def _encode_header(version: int, size: int) -> bytes:
    return HEADER.pack(b"ID3", version, 0, 0, encode_size(size))


def encode_size(size: int) -> bytes:
    """Returns a size below 256 MiB as four groups of seven bits."""
    return bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))


def decode_size(size: bytes) -> int:
    """Returns the size from four groups of seven bits."""
    return sum(part << shift for part, shift in zip(size, (21, 14, 7, 0), strict=True))
