"""Ogg streams (RFC 3533) with a serial number of our own choice.

libsndfile draws it at random and lets nobody set it, so that the same audio would never be the same file.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

PAGE_HEADER = struct.Struct("<4sBBqIIIB")
"""Capture pattern, version, type, granule position, serial number, page number, checksum, segments."""
SERIAL_OFFSET, CHECKSUM_OFFSET = 14, 22
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
ALL_ONES = 0xFFFF_FFFF


def set_serial(path: Path, serial: int) -> None:
    """Gives every page of the one stream in the file this serial number, 0 to 2³²-1. Raises OSError."""
    with path.open("r+b") as file:
        while header := file.read(PAGE_HEADER.size):
            start = file.tell() - len(header)
            pattern, *_, segments = PAGE_HEADER.unpack(header)
            assert pattern == b"OggS", "libsndfile writes nothing between pages"
            lacing = file.read(segments)
            page = bytearray(header + lacing + file.read(sum(lacing)))
            struct.pack_into("<I", page, SERIAL_OFFSET, serial)
            struct.pack_into("<I", page, CHECKSUM_OFFSET, 0)
            struct.pack_into("<I", page, CHECKSUM_OFFSET, checksum(page))
            file.seek(start)
            file.write(page)


def checksum(page: bytes | bytearray) -> int:
    """The page's CRC (RFC 3533, section 6): zlib's polynomial, but highest bit first, begun and ended without
    inversion."""
    crc = zlib.crc32(page.translate(REVERSED), ALL_ONES) ^ ALL_ONES
    return int(f"{crc:032b}"[::-1], 2)
