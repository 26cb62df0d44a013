"""Rewrites Ogg streams (RFC 3533) with a given serial number and comments.

libsndfile picks a random serial number that callers cannot set, so the same audio would never give the same file. Of
comments it supports only ten fields, and neither tempo nor key is among them.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from export_service.tagging.vorbis_comment import read_vendor

PAGE_HEADER = struct.Struct("<4sBBqIIIB")
"""Capture pattern, version, type, granule position, serial number, page number, checksum, segments."""
SERIAL_OFFSET, CHECKSUM_OFFSET = 14, 22
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
ALL_ONES = 0xFFFF_FFFF
COMMENT_PAGE = 1
FRAMING = {b"\x03vorbis": b"\x01", b"OpusTags": b""}
"""The magic that a comment packet starts with, in Vorbis and in Opus, and what follows the comments. Zeros may come
after that."""


def rewrite_stream(path: Path, serial: int, comments: bytes = b"") -> None:
    """Sets the serial number, 0 to 2³²-1, on every page of a file with one stream. Comments, if given, overwrite those
    of the file, which must be longer. Raises OSError.
    """
    with path.open("r+b") as file:
        while header := file.read(PAGE_HEADER.size):
            start = file.tell() - len(header)
            pattern, *_, page_number, _, segments = PAGE_HEADER.unpack(header)
            assert pattern == b"OggS", "libsndfile writes nothing between pages"
            lacing = file.read(segments)
            packets = bytearray(file.read(sum(lacing)))
            if comments and page_number == COMMENT_PAGE:
                _replace_comments(packets, lacing, comments)
            page = bytearray(header + lacing) + packets
            struct.pack_into("<I", page, SERIAL_OFFSET, serial)
            struct.pack_into("<I", page, CHECKSUM_OFFSET, 0)
            struct.pack_into("<I", page, CHECKSUM_OFFSET, compute_checksum(page))
            file.seek(start)
            file.write(page)


def _replace_comments(packets: bytearray, lacing: bytes, comments: bytes) -> None:
    """Replaces the comments in the first packet of a page."""
    # A packet ends at the first segment of fewer than 255 bytes.
    segments = next(number for number, size in enumerate(lacing, 1) if size < 255)
    size = sum(lacing[:segments])
    magic = next(magic for magic in FRAMING if packets.startswith(magic))
    packet = magic + read_vendor(packets[len(magic) : size]) + comments + FRAMING[magic]
    packets[:size] = packet.ljust(size, b"\0")


def compute_checksum(page: bytes | bytearray) -> int:
    """Returns the CRC of a page (RFC 3533, section 6): zlib's polynomial, but most significant bit first, and without
    inversion at the start and the end.
    """
    crc = zlib.crc32(page.translate(REVERSED_BITS), ALL_ONES) ^ ALL_ONES
    return int(f"{crc:032b}"[::-1], 2)
