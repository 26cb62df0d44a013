"""Cover pictures: PNG and JPEG files, which every container with pictures can hold."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Literal

from dgx_music.errors import InvalidArgument
from dgx_music.limits import MAX_COVER_BYTES

PNG_MAGIC, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
PNG_SIZE = struct.Struct(">16xII")
"""Width and height, in the header chunk, which is always the first."""
JPEG_MAGIC, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
JPEG_FILL = re.compile(rb"\xff+")
"""May be repeated before a marker."""
MAX_JPEG_SEGMENTS = 1000
"""Before the frame header. Pictures have tens; a profile of colours or metadata can take hundreds."""
JPEG_SEGMENT = struct.Struct(">BBH")
"""0xFF, the marker, and the length with these two bytes of it."""
JPEG_SIZE = struct.Struct(">5xHH")
"""Height and width in a frame header, after the marker."""
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of frame headers. The others in the range are tables and extensions."""

WITHOUT_COVER = frozenset({"CAF", "W64"})
"""Containers that have no place for a picture."""


@dataclass(frozen=True)
class Cover:
    """A picture for the tags of a file."""

    media_type: Literal["image/png", "image/jpeg"]
    data: bytes
    """The complete picture file."""
    width: int
    """In pixels, as `height`."""
    height: int


def parse_cover(data: bytes, field: str) -> Cover:
    """Returns the picture. Raises InvalidArgument, naming `field`, if it is not a complete PNG or JPEG file of at most
    3 MiB.
    """
    if len(data) > MAX_COVER_BYTES:
        limit = f"{MAX_COVER_BYTES // 2**20} MiB"
        raise InvalidArgument(field, f"must have at most {limit}, not {len(data)} bytes; make the picture smaller")
    media_type: Literal["image/png", "image/jpeg"]
    if data.startswith(PNG_MAGIC):
        media_type, size = "image/png", _png_size(data)
    elif data.startswith(JPEG_MAGIC):
        media_type, size = "image/jpeg", _jpeg_size(data)
    else:
        raise InvalidArgument(field, "must be a PNG or JPEG file; convert the picture to one of them")
    if size is None or 0 in size:
        raise InvalidArgument(field, "is a damaged or truncated picture; save it again")
    return Cover(media_type, data, *size)


def _png_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < PNG_SIZE.size or data[12:16] != b"IHDR" or PNG_END not in data:
        return None
    width, height = PNG_SIZE.unpack_from(data)
    return width, height


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    position = 2
    for _ in range(MAX_JPEG_SEGMENTS):
        fill = JPEG_FILL.match(data, position)
        if fill is None or fill.end() - 1 + JPEG_SIZE.size > len(data):
            break
        position = fill.end() - 1
        _, marker, length = JPEG_SEGMENT.unpack_from(data, position)
        if marker in JPEG_FRAMES:
            height, width = JPEG_SIZE.unpack_from(data, position)
            return (width, height) if data.find(JPEG_END, position) >= 0 else None
        position += 2 + length
    return None
