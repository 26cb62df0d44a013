"""Vorbis comments, the tag format of FLAC, Ogg Vorbis and Opus."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from export_service.tagging import id3
from export_service.tagging.cover import Cover, parse_cover
from export_service.tagging.musical_key import abbreviate_key
from export_service.tagging.sections import Section
from export_service.tagging.tags import FileTags, limit_parts

LENGTH = struct.Struct("<I")
BLOCK_HEADER = struct.Struct(">I")
"""Header of a FLAC metadata block: last-block flag (1 bit), type (7), size (24)."""
PADDING, VORBIS_COMMENT, PICTURE = 1, 4, 6
"""Types of FLAC metadata blocks."""
FLAC_MAGIC = b"fLaC"
FRONT_COVER = 3
BITS_PER_PIXEL = 24
PICTURE_FIELD = "METADATA_BLOCK_PICTURE"
MAX_CHAPTERS = 999
"""Their numbers have three digits."""
MAX_CHAPTER_BYTES = 16_384
"""libsndfile 1.2.2 writes no valid Opus file with comments of 60 kB."""


def encode_comments(tags: FileTags, sample_rate_hz: int, *, with_cover: bool = False) -> bytes:
    """Encodes the number of comments, then each one with its length; unknown values are left out. Of the sections, as
    many are written as fit into 16 KiB.

    The cover is a comment only in Ogg files; in FLAC it is a block of its own.
    """
    fields = {
        "TITLE": tags.title,
        "ARTIST": tags.artist,
        "ALBUM": tags.album,
        "COMMENT": tags.comment,
        "GENRE": tags.genre,
        "LICENSE": tags.license,
        "ENCODER": tags.generator,
        "BPM": f"{tags.bpm:g}" if tags.bpm else "",
        "INITIALKEY": abbreviate_key(tags.key),
        PICTURE_FIELD: base64.b64encode(encode_picture(tags.cover)).decode() if with_cover and tags.cover else "",
    }
    texts = [f"{name}={value}".encode() for name, value in fields.items() if value]
    texts += _encode_chapters(tags.sections, sample_rate_hz)
    return LENGTH.pack(len(texts)) + b"".join(LENGTH.pack(len(text)) + text for text in texts)


def _encode_chapters(sections: Sequence[Section], sample_rate_hz: int) -> list[bytes]:
    """Returns start and name of the sections (Xiph, Chapter Extension)."""
    chapters: list[bytes] = []
    space = MAX_CHAPTER_BYTES
    for number, section in enumerate(sections[:MAX_CHAPTERS], 1):
        seconds, ms = divmod(round(section.start_frame * 1000 / sample_rate_hz), 1000)
        start = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{ms:03}"
        pair = [f"CHAPTER{number:03}={start}".encode(), f"CHAPTER{number:03}NAME={section.name}".encode()]
        space -= sum(LENGTH.size + len(text) for text in pair)
        if space < 0:
            break
        chapters += pair
    return chapters


def encode_picture(cover: Cover) -> bytes:
    """Returns the content of a FLAC PICTURE block (RFC 9639, section 8.8)."""
    media_type = cover.media_type.encode()
    return b"".join(
        [
            struct.pack(">II", FRONT_COVER, len(media_type)),
            media_type,
            struct.pack(">6I", 0, cover.width, cover.height, BITS_PER_PIXEL, 0, len(cover.data)),
            cover.data,
        ]
    )


def encode_block(kind: int, content: bytes, *, is_last: bool = False) -> bytes:
    """Returns a FLAC metadata block."""
    return BLOCK_HEADER.pack(is_last << 31 | kind << 24 | len(content)) + content


def decode_comments(header: bytes) -> dict[str, str]:
    """Returns the comments of a header that starts with the vendor string, by their names in upper case."""
    position = len(read_vendor(header)) + LENGTH.size
    comments = {}
    while position + LENGTH.size <= len(header):
        (size,) = LENGTH.unpack_from(header, position)
        position += LENGTH.size
        name, separator, value = header[position : position + size].decode(errors="replace").partition("=")
        if not separator:
            break
        comments[name.upper()] = value
        position += size
    return comments


def decode_picture(block: bytes) -> Cover:
    """Returns the picture of a PICTURE block that `encode_picture` returned."""
    (media_type_bytes,) = struct.unpack_from(">4xI", block)
    return parse_cover(block[8 + media_type_bytes + 24 :], "cover")


def find_picture(comments: dict[str, str]) -> Cover | None:
    """Returns the cover among the comments of an Ogg file."""
    picture = comments.get(PICTURE_FIELD)
    return decode_picture(base64.b64decode(picture)) if picture else None


def decode_sections(comments: dict[str, str], sample_rate_hz: int, frames: int) -> tuple[Section, ...]:
    """Returns the sections, to the nearest millisecond; each ends where the next one starts."""
    starts, names = [], []
    for number in range(1, MAX_CHAPTERS + 1):
        if (start := comments.get(f"CHAPTER{number:03}")) is None:
            break
        hours, minutes, seconds = start.split(":")
        starts.append(round((int(hours) * 3600 + int(minutes) * 60 + float(seconds)) * sample_rate_hz))
        names.append(comments.get(f"CHAPTER{number:03}NAME", ""))
    return tuple(map(Section, names, starts, [*starts[1:], frames]))


def read_vendor(header: bytes | bytearray) -> bytes:
    """Returns the length and the vendor string, which names the encoder, from the start of a comment header."""
    return bytes(header[: LENGTH.size + LENGTH.unpack_from(header)[0]])


@limit_parts
def iter_flac_blocks(file: BinaryIO) -> Iterator[tuple[int, int, int, bool]]:
    """Yields type, offset of the content and its size of each metadata block, and whether it is the last one."""
    position, is_last = id3.find_end(file) + len(FLAC_MAGIC), False
    while not is_last:
        file.seek(position)
        (header,) = BLOCK_HEADER.unpack(file.read(BLOCK_HEADER.size))
        kind, size, is_last = header >> 24 & 0x7F, header & 0xFF_FFFF, bool(header >> 31)
        yield kind, position + BLOCK_HEADER.size, size, is_last
        position += BLOCK_HEADER.size + size


def replace_flac_comments(path: Path, comments: bytes, cover: Cover | None = None) -> None:
    """Overwrites the comments of the file, which must be longer by at least the headers of a block and of the cover's.
    Raises OSError.
    """
    with path.open("r+b") as file:
        blocks = iter_flac_blocks(file)
        start, size, is_last = next((start, size, last) for kind, start, size, last in blocks if kind == VORBIS_COMMENT)
        file.seek(start)
        content = encode_block(VORBIS_COMMENT, read_vendor(file.read(size)) + comments)
        if cover is not None:
            content += encode_block(PICTURE, encode_picture(cover))
        space = size - len(content)
        file.seek(start - BLOCK_HEADER.size)
        file.write(content + encode_block(PADDING, bytes(space), is_last=is_last))


def read_flac_tags(path: Path) -> tuple[dict[str, str], Cover | None]:
    """Returns the comments and the cover of a FLAC file. Raises OSError."""
    comments, cover = {}, None
    with path.open("rb") as file:
        for kind, start, size, _ in iter_flac_blocks(file):
            file.seek(start)
            if kind == VORBIS_COMMENT:
                comments = decode_comments(file.read(size))
            elif kind == PICTURE:
                cover = decode_picture(file.read(size))
    return comments, cover
