"""Rewrites Ogg streams (RFC 3533) with a given serial number and comments.

libsndfile picks a random serial number that callers cannot set, so the same audio would never give the same file. Of
comments it supports only ten fields, and neither tempo nor key is among them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from export_service.tagging.vorbis_comment import decode_comments, read_vendor

PAGE_HEADER = struct.Struct("<4sBBqIIIB")
"""Capture pattern, version, type, granule position, serial number, page number, checksum, segments."""
SERIAL_OFFSET, CHECKSUM_OFFSET = 14, 22
CHECKSUM = struct.Struct("<I")
TYPE_OFFSET, LAST_PAGE = 5, 4
"""Of the type of a page, and its bit for the last page of a stream."""
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
ALL_ONES = 0xFFFF_FFFF
COMMENT_PAGE = 1
MAX_SEGMENT_BYTES = 255
FRAMING = {b"\x03vorbis": b"\x01", b"OpusTags": b""}
"""The magic that a comment packet starts with, in Vorbis and in Opus, and what follows the comments. Zeros may come
after that."""


def rewrite_stream(path: Path, serial: int, comments: bytes = b"") -> None:
    """Sets the serial number, 0 to 2³²-1, on every page of a file with one stream. Comments, if given, overwrite those
    of the file, which must be longer. Raises OSError.
    """
    header = read_comment_header(path) if comments else b""
    replacement = _fill_header(header, comments) if comments else b""
    with path.open("r+b") as file:
        for start, page_number, page_header, packets in iter_pages(file):
            if replacement and page_number >= COMMENT_PAGE:
                packets = replacement[: len(packets)] + packets[len(replacement) :]
                replacement = replacement[len(packets) :]
            page = bytearray(page_header) + packets
            struct.pack_into("<I", page, SERIAL_OFFSET, serial)
            set_checksum(page)
            file.seek(start)
            file.write(page)


def iter_pages(file: BinaryIO) -> Iterator[tuple[int, int, bytes, bytes]]:
    """Yields offset, page number, header with lacing values, and content of each page."""
    start = 0
    while True:
        file.seek(start)
        header = file.read(PAGE_HEADER.size)
        if len(header) < PAGE_HEADER.size:
            return
        pattern, *_, page_number, _, segments = PAGE_HEADER.unpack(header)
        if pattern != b"OggS":
            raise ValueError(f"no Ogg page at byte {start}")
        lacing = file.read(segments)
        content = file.read(sum(lacing))
        yield start, page_number, header + lacing, content
        start += len(header) + len(lacing) + len(content)


def check_pages(file: BinaryIO) -> None:
    """Reads the whole file. Raises ValueError if a page is damaged or missing: decoders skip those without an error."""
    header = b""
    for expected, (start, page_number, header, content) in enumerate(iter_pages(file)):
        page = header + content
        if page_number != expected or CHECKSUM.unpack_from(page, CHECKSUM_OFFSET)[0] != compute_checksum(page):
            raise ValueError(f"the Ogg page at byte {start} is damaged, or not the next")
    if len(header) <= TYPE_OFFSET or not header[TYPE_OFFSET] & LAST_PAGE:
        raise ValueError("its last Ogg page is missing")


def read_comment_header(path: Path) -> bytes:
    """Returns the second packet, which contains the comments, with the magic that it starts with. Raises OSError."""
    packet = bytearray()
    with path.open("rb") as file:
        for _, page_number, header, content in iter_pages(file):
            if page_number < COMMENT_PAGE:
                continue
            position = 0
            for size in header[PAGE_HEADER.size :]:
                packet += content[position : position + size]
                position += size
                if size < MAX_SEGMENT_BYTES:  # The packet ends.
                    return bytes(packet)
    return bytes(packet)


def read_comments(path: Path) -> dict[str, str]:
    """Returns the comments of the file, by their names in upper case. Raises OSError."""
    header = read_comment_header(path)
    return decode_comments(header[len(_find_magic(header)) :])


def encode_comment_header(header: bytes, comments: bytes) -> bytes:
    """Returns the comment header with other comments; it keeps the vendor string."""
    magic = _find_magic(header)
    return magic + read_vendor(header[len(magic) :]) + comments + FRAMING[magic]


def _fill_header(header: bytes, comments: bytes) -> bytes:
    return encode_comment_header(header, comments).ljust(len(header), b"\0")


def _find_magic(header: bytes) -> bytes:
    return next(magic for magic in FRAMING if header.startswith(magic))


def compute_checksum(page: bytes | bytearray) -> int:
    """Returns the CRC of a page, whatever its checksum field contains (RFC 3533, section 6): zlib's polynomial, but
    most significant bit first, and without inversion at the start and the end.
    """
    blank = page[:CHECKSUM_OFFSET] + bytes(CHECKSUM.size) + page[CHECKSUM_OFFSET + CHECKSUM.size :]
    crc = zlib.crc32(blank.translate(REVERSED_BITS), ALL_ONES) ^ ALL_ONES
    return int(f"{crc:032b}"[::-1], 2)


def set_checksum(page: bytearray) -> None:
    """Writes the checksum of a page into it."""
    CHECKSUM.pack_into(page, CHECKSUM_OFFSET, compute_checksum(page))
