"""Ogg streams (RFC 3533) with another comment header, after which all pages get other numbers and checksums."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from export_service.tagging.ogg import (
    COMMENT_PAGE,
    MAX_SEGMENT_BYTES,
    PAGE_HEADER,
    encode_comment_header,
    iter_pages,
    set_checksum,
)

MAX_SEGMENTS = 255
NUMBER_OFFSET = 18
CONTINUED = 1
"""Flag of a page that starts within a packet."""
NO_PACKET_ENDS = -1
"""Granule position of a page in which no packet ends."""
HEADER_PACKETS = {b"\x03vorbis": 2, b"OpusTags": 1}
"""Number of packets from the comment header up to the first one with audio, which starts a new page."""


def iter_stream(source: BinaryIO, comments: bytes) -> Iterator[bytes]:
    """Yields the pages of an open file with one stream and other comments, as `encode_comments` returns them.

    The packets with audio, their pages and their positions do not change. Raises ValueError, EOFError and struct.error
    if the file is damaged.
    """
    pages = iter_pages(source)
    _, _, header, content = next(pages, (0, 0, b"", b""))
    yield header + content
    serial = PAGE_HEADER.unpack_from(header)[4]
    packets, old_pages = _read_header_packets(pages)
    packets[0] = encode_comment_header(packets[0], comments)
    new_pages = list(_paginate(packets, serial))
    yield from new_pages
    for _, number, header, content in pages:
        page = bytearray(header + content)
        struct.pack_into("<I", page, NUMBER_OFFSET, number - old_pages + len(new_pages))
        yield _with_checksum(page)


def _read_header_packets(pages: Iterator[tuple[int, int, bytes, bytes]]) -> tuple[list[bytes], int]:
    """Returns the packets from the comment header up to the audio, and the number of pages that they fill."""
    packets, packet = list[bytes](), bytearray()
    for count, (_, _, header, content) in enumerate(pages, 1):
        position = 0
        for size in header[PAGE_HEADER.size :]:
            packet += content[position : position + size]
            position += size
            if size < MAX_SEGMENT_BYTES:
                packets.append(bytes(packet))
                packet.clear()
        if packets and len(packets) >= _count_header_packets(packets[0]):
            return packets, count
    raise EOFError("the file ends within its header")


def _count_header_packets(first: bytes) -> int:
    for magic, count in HEADER_PACKETS.items():
        if first.startswith(magic):
            return count
    raise ValueError("its comment header is damaged")


def _paginate(packets: list[bytes], serial: int) -> Iterator[bytes]:
    """Yields pages that contain these packets without audio, numbered from the page of the comment header on."""
    segments = [
        packet[position : position + MAX_SEGMENT_BYTES]
        for packet in packets
        for position in range(0, len(packet) + 1, MAX_SEGMENT_BYTES)
    ]
    is_continued = False
    for number, first in enumerate(range(0, len(segments), MAX_SEGMENTS), COMMENT_PAGE):
        page_segments = segments[first : first + MAX_SEGMENTS]
        lacing = bytes(map(len, page_segments))
        ends_packet = any(size < MAX_SEGMENT_BYTES for size in lacing)
        position = 0 if ends_packet else NO_PACKET_ENDS
        flags = CONTINUED if is_continued else 0
        header = PAGE_HEADER.pack(b"OggS", 0, flags, position, serial, number, 0, len(lacing))
        yield _with_checksum(bytearray(header + lacing + b"".join(page_segments)))
        is_continued = lacing[-1] == MAX_SEGMENT_BYTES


def _with_checksum(page: bytearray) -> bytes:
    set_checksum(page)
    return bytes(page)
