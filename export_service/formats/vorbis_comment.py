"""Vorbis comments, which FLAC, Ogg Vorbis and Opus share."""

from __future__ import annotations

import struct
from pathlib import Path

from export_service.formats.musical_key import short_key
from export_service.formats.tags import FileTags

LENGTH = struct.Struct("<I")
BLOCK_HEADER = struct.Struct(">I")
"""Of a FLAC metadata block: last one or not (1 bit), type (7), size (24)."""
PADDING, VORBIS_COMMENT = 1, 4
"""Types of FLAC metadata blocks."""
FLAC_MAGIC_BYTES = 4


def comments(tags: FileTags) -> bytes:
    """Their number, and each with its length; what is not known is left out."""
    listed = {
        "TITLE": tags.title,
        "ARTIST": tags.artist,
        "COMMENT": tags.comment,
        "GENRE": tags.genre,
        "LICENSE": tags.license,
        "ENCODER": tags.generator,
        "BPM": f"{tags.bpm:g}" if tags.bpm else "",
        "INITIALKEY": short_key(tags.key),
    }
    texts = [f"{name}={value}".encode() for name, value in listed.items() if value]
    return LENGTH.pack(len(texts)) + b"".join(LENGTH.pack(len(text)) + text for text in texts)


def vendor(header: bytes | bytearray) -> bytes:
    """With its length, which a comment header begins with: the encoder's name stays."""
    return bytes(header[: LENGTH.size + LENGTH.unpack_from(header)[0]])


def replace_in_flac(path: Path, content: bytes) -> None:
    """Puts the comments in the place of the file's, which are longer by at least a block's header. Raises OSError."""
    with path.open("r+b") as file:
        start, kind = FLAC_MAGIC_BYTES, -1
        while kind != VORBIS_COMMENT:
            file.seek(start)
            (header,) = BLOCK_HEADER.unpack(file.read(BLOCK_HEADER.size))
            kind, size, is_last = header >> 24 & 0x7F, header & 0xFF_FFFF, header >> 31
            start += BLOCK_HEADER.size + size
        block = file.read(size)
        block = vendor(block) + content
        file.seek(-size - BLOCK_HEADER.size, 1)
        room = size - len(block) - BLOCK_HEADER.size
        file.write(BLOCK_HEADER.pack(VORBIS_COMMENT << 24 | len(block)) + block)
        file.write(BLOCK_HEADER.pack(is_last << 31 | PADDING << 24 | room) + bytes(room))
