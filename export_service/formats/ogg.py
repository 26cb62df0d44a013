"""Ogg streams (RFC 3533) with a serial number and comments of our own choice.

libsndfile draws the number at random and lets nobody set it, so that the same audio would never be the same file; of
comments it knows ten by name, and neither tempo nor key.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from export_service.formats.vorbis_comment import vendor

PAGE_HEADER = struct.Struct("<4sBBqIIIB")
"""Capture pattern, version, type, granule position, serial number, page number, checksum, segments."""
SERIAL_OFFSET, CHECKSUM_OFFSET = 14, 22
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
ALL_ONES = 0xFFFF_FFFF
COMMENT_PAGE = 1
FRAMING = {b"\x03vorbis": b"\x01", b"OpusTags": b""}
"""What a comment packet begins with, in Vorbis and in Opus, and what follows the comments; zeros may come after it."""


def mend(path: Path, serial: int, comments: bytes = b"") -> None:
    """Gives every page of the one stream in the file this serial number, 0 to 2³²-1, and puts the comments, if any are
    given, in the place of the file's, which are longer. Raises OSError.
    """
    with path.open("r+b") as file:
        while header := file.read(PAGE_HEADER.size):
            start = file.tell() - len(header)
            pattern, *_, page_number, _, segments = PAGE_HEADER.unpack(header)
            assert pattern == b"OggS", "libsndfile writes nothing between pages"
            lacing = file.read(segments)
            packets = bytearray(file.read(sum(lacing)))
            if comments and page_number == COMMENT_PAGE:
                _replace(packets, lacing, comments)
            page = bytearray(header + lacing) + packets
            struct.pack_into("<I", page, SERIAL_OFFSET, serial)
            struct.pack_into("<I", page, CHECKSUM_OFFSET, 0)
            struct.pack_into("<I", page, CHECKSUM_OFFSET, checksum(page))
            file.seek(start)
            file.write(page)


def _replace(packets: bytearray, lacing: bytes, comments: bytes) -> None:
    """In the first of the packets of a page, which ends there: at its first segment of less than 255 bytes."""
    segments = next(number for number, size in enumerate(lacing, 1) if size < 255)
    size = sum(lacing[:segments])
    magic = next(magic for magic in FRAMING if packets.startswith(magic))
    packet = magic + vendor(packets[len(magic) : size]) + comments + FRAMING[magic]
    packets[:size] = packet.ljust(size, b"\0")


def checksum(page: bytes | bytearray) -> int:
    """The page's CRC (RFC 3533, section 6): zlib's polynomial, but highest bit first, begun and ended without
    inversion."""
    crc = zlib.crc32(page.translate(REVERSED), ALL_ONES) ^ ALL_ONES
    return int(f"{crc:032b}"[::-1], 2)
