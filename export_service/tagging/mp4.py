"""Tags of MPEG-4 files: the item list of iTunes in `moov/udta/meta/ilst`, which all players read, and Nero's chapters.

The `moov` box stands in front of the samples, so that a file can be played while it arrives, e.g. from a pipe.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from export_service.tagging.cover import Cover, parse_cover
from export_service.tagging.musical_key import abbreviate_key
from export_service.tagging.riff import move_bytes
from export_service.tagging.sections import Section
from export_service.tagging.tag_text import truncate_utf8
from export_service.tagging.tags import FileTags, limit_parts

BOX_HEADER = struct.Struct(">I4s")
"""Size, with this header, and type."""
BOX_TYPE_OFFSET = 4
LARGE_SIZE = struct.Struct(">Q")
"""Follows the header if its size is 1."""
FULL_BOX_BYTES = 4
"""Version and flags."""
DATA = struct.Struct(">II")
"""Type of the value, locale."""
UTF_8, JPEG, PNG, INTEGER = 1, 13, 14, 21
TEXT_ITEMS = {
    b"\xa9nam": "title",
    b"\xa9ART": "artist",
    b"\xa9alb": "album",
    b"\xa9gen": "genre",
    b"\xa9cmt": "comment",
    b"cprt": "license",
    b"\xa9too": "generator",
}
MEAN = b"com.apple.iTunes"
TIME = struct.Struct(">12xII"), struct.Struct(">20xIQ")
"""Time scale and length in the `mdhd` box, by its version. The time scale of audio is its sample rate."""
METADATA_HANDLER = struct.pack(">4xI4s4s8xx", 0, b"mdir", b"appl")
CHAPTER_COUNT = struct.Struct(">B3x4xB")
"""Version, flags, reserved, number of chapters."""
CHAPTER = struct.Struct(">QB")
"""Start in units of 100 ns, length of the title, which follows."""
CHAPTER_UNITS_PER_SECOND = 10_000_000
MAX_CHAPTERS = MAX_TITLE_BYTES = 255
SAMPLE_TABLE_PARENTS = (b"trak", b"mdia", b"minf", b"stbl")
OFFSET_TABLES = {b"stco": "I", b"co64": "Q"}
"""Boxes with the offsets of samples in the file → the type of one."""
TABLE_HEADER_BYTES = 8
"""Version, flags and number of entries."""
MANIFEST_UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
"""Of the box with Content Credentials (C2PA Technical Specification, A.5)."""


def encode_user_data(tags: FileTags, sample_rate_hz: int) -> bytes:
    """Returns the `udta` box with all tags; unknown values are left out. Only the first 255 sections are written."""
    texts = ((name, getattr(tags, attribute)) for name, attribute in TEXT_ITEMS.items())
    encoded = [_encode_box(name, _encode_data(UTF_8, text.encode())) for name, text in texts if text]
    if tags.bpm:
        encoded.append(_encode_box(b"tmpo", _encode_data(INTEGER, struct.pack(">H", round(tags.bpm)))))
    if key := abbreviate_key(tags.key):
        encoded.append(_encode_free_form("initialkey", key))
    if tags.license:
        encoded.append(_encode_free_form("LICENSE", tags.license))
    if tags.cover is not None:
        kind = PNG if tags.cover.media_type == "image/png" else JPEG
        encoded.append(_encode_box(b"covr", _encode_data(kind, tags.cover.data)))
    metadata = _encode_box(b"hdlr", METADATA_HANDLER) + _encode_box(b"ilst", b"".join(encoded))
    chapters = _encode_chapters(tags.sections[:MAX_CHAPTERS], sample_rate_hz) if tags.sections else b""
    return _encode_box(b"udta", _encode_box(b"meta", bytes(FULL_BOX_BYTES) + metadata) + chapters)


def replace_user_data(path: Path, user_data: bytes) -> None:
    """Replaces the `udta` box of a file of ours, and puts the `moov` box in front of the samples. Raises OSError."""
    with path.open("r+b") as file:
        start, size, header = _find_movie(path)
        file.seek(start + header)
        content = file.read(size - header)
        kept = b"".join(content[first:last] for name, first, _, last in _iter_boxes(content) if name != b"udta")
        samples = next(first for name, first, *_ in _iter_file_boxes(file) if name == b"mdat")
        moved = (start + size, file.seek(0, os.SEEK_END)) if start < samples else (samples, start)
        position = min(start, samples)
        distance = position + BOX_HEADER.size + len(kept) + len(user_data) - moved[0]
        move_bytes(file, *moved, distance)
        file.seek(position)
        file.write(_encode_box(b"moov", _move_samples(kept, distance) + user_data))
        file.truncate(moved[1] + distance)


def discard_manifest(path: Path) -> None:
    """Turns the box with Content Credentials, if the file has one, into free space. Raises OSError."""
    with path.open("r+b") as file:
        for name, start, content_start, _ in list(_iter_file_boxes(file)):
            file.seek(content_start)
            if name == b"uuid" and file.read(len(MANIFEST_UUID)) == MANIFEST_UUID:
                file.seek(start + BOX_TYPE_OFFSET)
                file.write(b"free")


def read_items(path: Path) -> tuple[dict[str, str], Cover | None]:
    """Returns title, artist, album and comment, as far as the item list has them, and the cover. Raises OSError."""
    with path.open("rb") as file:
        start, size, header = _find_movie(path)
        file.seek(start + header)
        movie = file.read(size - header)
    metadata = _find_box(_find_box(movie, b"udta"), b"meta")[FULL_BOX_BYTES:]
    items = _find_box(metadata, b"ilst")
    values = {name: _find_box(items[first:last], b"data")[DATA.size :] for name, _, first, last in _iter_boxes(items)}
    texts = {attribute: values[name].decode() for name, attribute in TEXT_ITEMS.items() if name in values}
    return texts, parse_cover(values[b"covr"], "cover") if b"covr" in values else None


def read_sections(path: Path) -> tuple[Section, ...]:
    """Returns the sections of the file; each ends where the next one starts. Raises OSError."""
    with path.open("rb") as file:
        start, size, header = _find_movie(path)
        file.seek(start + header)
        movie = file.read(size - header)
    chapters = _find_box(_find_box(movie, b"udta"), b"chpl")
    media = _find_box(_find_box(_find_box(movie, b"trak"), b"mdia"), b"mdhd")
    sample_rate_hz, frames = TIME[media[0]].unpack_from(media)
    position, starts, names = CHAPTER_COUNT.size, list[int](), list[str]()
    while position < len(chapters):
        units, title_bytes = CHAPTER.unpack_from(chapters, position)
        position += CHAPTER.size + title_bytes
        starts.append(round(units * sample_rate_hz / CHAPTER_UNITS_PER_SECOND))
        names.append(chapters[position - title_bytes : position].decode())
    return tuple(map(Section, names, starts, [*starts[1:], frames]))


def _find_movie(path: Path) -> tuple[int, int, int]:
    """Returns offset, size and header's size of the `moov` box."""
    with path.open("rb") as file:
        boxes = _iter_file_boxes(file)
        start, content_start, end = next(bounds for name, *bounds in boxes if name == b"moov")
    return start, end - start, content_start - start


def _move_samples(content: bytes, distance: int) -> bytes:
    """Returns the boxes with all offsets of samples changed by the distance."""
    moved = []
    for name, first, content_first, last in _iter_boxes(content):
        if name in OFFSET_TABLES:
            count = (last - content_first - TABLE_HEADER_BYTES) // struct.calcsize(OFFSET_TABLES[name])
            table = struct.Struct(f">{count}{OFFSET_TABLES[name]}")
            offsets = table.unpack_from(content, content_first + TABLE_HEADER_BYTES)
            head = content[first : content_first + TABLE_HEADER_BYTES]
            moved.append(head + table.pack(*(offset + distance for offset in offsets)))
        elif name in SAMPLE_TABLE_PARENTS:
            moved.append(_encode_box(name, _move_samples(content[content_first:last], distance)))
        else:
            moved.append(content[first:last])
    return b"".join(moved)


@limit_parts
def _iter_file_boxes(file: BinaryIO) -> Iterator[tuple[bytes, int, int, int]]:
    """Yields type, start, start of the content and end of each box of an open file."""
    end, start = file.seek(0, os.SEEK_END), 0
    while start + BOX_HEADER.size <= end:
        file.seek(start)
        head = file.read(BOX_HEADER.size + LARGE_SIZE.size)
        size, name = BOX_HEADER.unpack_from(head)
        content_start = start + BOX_HEADER.size
        if size == 1:
            (size,) = LARGE_SIZE.unpack_from(head, BOX_HEADER.size)
            content_start += LARGE_SIZE.size
        if size == 0:  # Up to the end.
            size = end - start
        yield name, start, content_start, start + size
        start += max(size, BOX_HEADER.size)


@limit_parts
def _iter_boxes(content: bytes) -> Iterator[tuple[bytes, int, int, int]]:
    """Yields type, start, start of the content and end of each box."""
    position = 0
    while position + BOX_HEADER.size <= len(content):
        size, name = BOX_HEADER.unpack_from(content, position)
        yield name, position, position + BOX_HEADER.size, position + size
        position += max(size, BOX_HEADER.size)


def _find_box(content: bytes, wanted: bytes) -> bytes:
    """Returns the content of the first box of the type; empty if there is none."""
    return next((content[first:last] for name, _, first, last in _iter_boxes(content) if name == wanted), b"")


def _encode_chapters(sections: Sequence[Section], sample_rate_hz: int) -> bytes:
    chapters = [CHAPTER_COUNT.pack(1, len(sections))]
    for section in sections:
        title = truncate_utf8(section.name, MAX_TITLE_BYTES).encode()
        start = round(section.start_frame * CHAPTER_UNITS_PER_SECOND / sample_rate_hz)
        chapters.append(CHAPTER.pack(start, len(title)) + title)
    return _encode_box(b"chpl", b"".join(chapters))


def _encode_free_form(name: str, text: str) -> bytes:
    mean = _encode_box(b"mean", bytes(FULL_BOX_BYTES) + MEAN)
    return _encode_box(
        b"----", mean + _encode_box(b"name", bytes(FULL_BOX_BYTES) + name.encode()) + _encode_data(UTF_8, text.encode())
    )


def _encode_data(kind: int, value: bytes) -> bytes:
    return _encode_box(b"data", DATA.pack(kind, 0) + value)


def _encode_box(name: bytes, content: bytes) -> bytes:
    return BOX_HEADER.pack(BOX_HEADER.size + len(content), name) + content
