"""Validates the pages of an Ogg file (RFC 3533), and finds the streams that they contain.

libsndfile skips damaged pages without an error, stops after the first of several chained streams, and can't read FLAC
in Ogg.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from export_service.decoding.decoded_audio import DecodeError
from export_service.decoding.file_view import FileView
from export_service.tagging.ogg import CHECKSUM, CHECKSUM_OFFSET, PAGE_HEADER, compute_checksum, set_checksum

CODECS = {
    b"\x01vorbis": "Vorbis",
    b"OpusHead": "Opus",
    b"\x7fFLAC": "FLAC",
    b"Speex   ": "Speex",
    b"fishead\0": "Skeleton",
    b"\x80theora": "Theora",
    b"BBCD\0": "Dirac",
    b"\x80kate\0\0\0": "Kate",
    b"CELT    ": "CELT",
    b"PCM     ": "PCM",
    b"\x01video": "OGM",
}
"""What a stream's first packet begins with → the codec."""
AUDIO_CODECS = {"Vorbis", "Opus", "FLAC", "Speex", "CELT", "PCM"}
FLAC_MAPPING_BYTES = 9
"""What comes before the native FLAC header: 0x7F "FLAC", version, and number of header packets (RFC 9639, 10.1)."""
TYPE_OFFSET = 5
BEGINS, ENDS = 2, 4
"""Bits of the type of a page: first and last of its stream."""


@dataclass(frozen=True)
class Page:
    """A page, with what its header says."""

    offset: int
    serial: int
    number: int
    granule: int
    begins: bool
    ends: bool
    content: bytes


@dataclass(frozen=True)
class Stream:
    """One of the streams of a file."""

    codec: str
    first_packet: bytes
    last_page: Page
    """Its `content` is empty."""


def read_streams(file: FileView) -> list[Stream]:
    """Reads the whole file. Raises DecodeError if it is truncated or damaged, or consists of several files."""
    streams: dict[int, Stream] = {}
    are_all_begun = False
    for page in iter_valid_pages(file):
        last_page = replace(page, content=b"")
        if page.begins:
            if are_all_begun:
                raise DecodeError(
                    "it consists of several files one after another (chained Ogg), which has to be split or converted"
                )
            codec = next((name for magic, name in CODECS.items() if page.content.startswith(magic)), "unknown data")
            streams[page.serial] = Stream(codec, page.content, last_page)
            continue
        are_all_begun = True
        if page.serial not in streams:
            raise DecodeError(f"its {page.serial:08x} stream has no beginning")
        before = streams[page.serial].last_page
        # A recorded broadcast begins with headers that belong before other pages.
        if before.granule > 0 and page.number != before.number + 1:
            raise DecodeError(f"pages are missing after page {before.number} of its {page.serial:08x} stream")
        streams[page.serial] = replace(streams[page.serial], last_page=last_page)
    return list(streams.values())


def mark_end(file: FileView, stream: Stream) -> dict[int, bytes]:
    """Returns what to patch in the stream's last page so that it says it is the last: offset → bytes. In recordings
    of broadcasts none says so, and libsndfile does not decode Opus then.
    """
    if stream.last_page.ends:
        return {}
    offset = stream.last_page.offset
    page = bytearray(file.read_at(offset, PAGE_HEADER.size))
    segments = page[-1]
    lacing = file.read_at(offset + len(page), segments)
    page += lacing + file.read_at(offset + len(page) + segments, sum(lacing))
    page[TYPE_OFFSET] |= ENDS
    set_checksum(page)
    checksum = bytes(page[CHECKSUM_OFFSET : CHECKSUM_OFFSET + CHECKSUM.size])
    return {offset + TYPE_OFFSET: bytes([page[TYPE_OFFSET]]), offset + CHECKSUM_OFFSET: checksum}


def iter_valid_pages(file: FileView) -> Iterator[Page]:
    """Yields all pages. Raises DecodeError if one is damaged or incomplete. What follows the last page of all streams
    is ignored.
    """
    file.seek(0, os.SEEK_SET)
    open_streams: set[int] = set()
    offset = 0
    while header := file.read(PAGE_HEADER.size):
        is_page = len(header) == PAGE_HEADER.size and header.startswith(b"OggS")
        if not is_page and offset and not open_streams:
            return
        if not is_page:
            raise DecodeError(f"it is truncated or damaged: there is no whole page at byte {offset}")
        _, _, kind, granule, serial, number, checksum, segments = PAGE_HEADER.unpack(header)
        lacing = file.read(segments) or b""
        content = file.read(sum(lacing)) or b""
        if len(lacing) < segments or len(content) < sum(lacing):
            raise DecodeError(f"it is truncated: its last page, at byte {offset}, is incomplete")
        page = header + lacing + content
        if compute_checksum(page) != checksum:
            raise DecodeError(f"it is damaged: the page at byte {offset} has a wrong checksum")
        if kind & ENDS:
            open_streams.discard(serial)
        else:
            open_streams.add(serial)
        yield Page(offset, serial, number, granule, bool(kind & BEGINS), bool(kind & ENDS), content)
        offset += len(page)


def unwrap_flac(file: FileView, destination: BinaryIO) -> None:
    """Writes the FLAC file that an Ogg file with a single stream of FLAC contains. Raises DecodeError and OSError."""
    for page in iter_valid_pages(file):
        destination.write(page.content[FLAC_MAPPING_BYTES if page.begins else 0 :])
