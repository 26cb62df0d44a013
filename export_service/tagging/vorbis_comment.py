"""Vorbis comments, the tag format of FLAC, Ogg Vorbis and Opus."""

from __future__ import annotations

import struct
from pathlib import Path

from export_service.tagging.musical_key import abbreviate_key
from export_service.tagging.tags import FileTags

LENGTH = struct.Struct("<I")
BLOCK_HEADER = struct.Struct(">I")
"""Header of a FLAC metadata block: last-block flag (1 bit), type (7), size (24)."""
PADDING, VORBIS_COMMENT = 1, 4
"""Types of FLAC metadata blocks."""
FLAC_MAGIC_BYTES = 4


def encode_comments(tags: FileTags) -> bytes:
    """Encodes the number of comments, then each one with its length; unknown values are left out."""
    fields = {
        "TITLE": tags.title,
        "ARTIST": tags.artist,
        "COMMENT": tags.comment,
        "GENRE": tags.genre,
        "LICENSE": tags.license,
        "ENCODER": tags.generator,
        "BPM": f"{tags.bpm:g}" if tags.bpm else "",
        "INITIALKEY": abbreviate_key(tags.key),
    }
    texts = [f"{name}={value}".encode() for name, value in fields.items() if value]
    return LENGTH.pack(len(texts)) + b"".join(LENGTH.pack(len(text)) + text for text in texts)


def read_vendor(header: bytes | bytearray) -> bytes:
    """Returns the length and the vendor string, which names the encoder, from the start of a comment header."""
    return bytes(header[: LENGTH.size + LENGTH.unpack_from(header)[0]])


def replace_flac_comments(path: Path, comments: bytes) -> None:
    """Overwrites the comments of the file, which must be longer by at least a block header. Raises OSError."""
    with path.open("r+b") as file:
        start, block_type = FLAC_MAGIC_BYTES, -1
        while block_type != VORBIS_COMMENT:
            file.seek(start)
            (header,) = BLOCK_HEADER.unpack(file.read(BLOCK_HEADER.size))
            block_type, size, is_last = header >> 24 & 0x7F, header & 0xFF_FFFF, header >> 31
            start += BLOCK_HEADER.size + size
        block = file.read(size)
        block = read_vendor(block) + comments
        file.seek(-size - BLOCK_HEADER.size, 1)
        padding = size - len(block) - BLOCK_HEADER.size
        file.write(BLOCK_HEADER.pack(VORBIS_COMMENT << 24 | len(block)) + block)
        file.write(BLOCK_HEADER.pack(is_last << 31 | PADDING << 24 | padding) + bytes(padding))
