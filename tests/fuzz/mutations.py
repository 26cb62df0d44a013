"""Damages files where their structure is: sizes, counts and offsets, and the order of chunks, pages and boxes."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Sequence

from export_service.tagging.ogg import PAGE_HEADER, set_checksum

FOUR_CHARACTERS = re.compile(rb"[A-Za-z ][A-Za-z0-9 _\xa9-]{3}")
"""What the names of chunks and boxes look like."""
FIELDS = ("<H", ">H", "<I", ">I", "<Q", ">Q")
INTERESTING = (0, 1, 2, 3, 4, 7, 8, 9, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7F00_0000, 0x7FFF_FFFF, 0x8000_0000)
INTERESTING += (0xFFFF_FFF0, 0xFFFF_FFFE, 0xFFFF_FFFF, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
HEAD_BYTES = 256
"""Headers are here, whatever the format."""
MAX_PIECE_BYTES = 4096

Mutation = Callable[[random.Random, bytearray], None]


def mutate(seed: str, content: bytes, others: Sequence[bytes]) -> bytes:
    """Returns the content with one to four damages. The same seed gives the same. `others` are files to splice with."""
    draw = random.Random(seed)
    damaged = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 2, 4))):
        if not damaged:
            break
        if draw.random() < 0.05:
            _splice(draw, damaged, draw.choice(others))
        else:
            draw.choices(MUTATIONS, WEIGHTS)[0](draw, damaged)
    if damaged[:4] == b"OggS" and draw.random() < 0.8:
        _mend_checksums(damaged)
    return bytes(damaged)


def _field_after_name(draw: random.Random, content: bytearray) -> None:
    """Changes a number next to the name of a chunk or box: its size, or one of its first fields."""
    names = [match.start() for match in FOUR_CHARACTERS.finditer(content[: 1 << 16])]
    if names:
        _set_field(draw, content, draw.choice(names) + draw.choice((-4, 4, 4, 8, 12, 16, 20, 24)))


def _field_in_head(draw: random.Random, content: bytearray) -> None:
    _set_field(draw, content, draw.randrange(min(len(content), HEAD_BYTES)))


def _set_field(draw: random.Random, content: bytearray, position: int) -> None:
    field = struct.Struct(draw.choice(FIELDS))
    if not 0 <= position <= len(content) - field.size:
        return
    limit = 256**field.size
    (old,) = field.unpack_from(content, position)
    nearby = (old + draw.choice((-8, -2, -1, 1, 2, 8)), old * 2, old // 2, len(content), len(content) - position, ~old)
    value = draw.choice(nearby) if draw.random() < 0.4 else draw.choice(INTERESTING)
    field.pack_into(content, position, value % limit)


def _flip_bits(draw: random.Random, content: bytearray) -> None:
    end = len(content) if draw.random() < 0.5 else min(len(content), HEAD_BYTES)
    for _ in range(draw.choice((1, 2, 8, 64))):
        content[draw.randrange(end)] ^= 1 << draw.randrange(8)


def _truncate(draw: random.Random, content: bytearray) -> None:
    end = draw.randrange(len(content)) if draw.random() < 0.5 else draw.randrange(min(len(content), HEAD_BYTES))
    del content[end:]


def _delete(draw: random.Random, content: bytearray) -> None:
    start, end = _pick_piece(draw, content)
    del content[start:end]


def _repeat(draw: random.Random, content: bytearray) -> None:
    start, end = _pick_piece(draw, content)
    content[end:end] = content[start:end] * draw.choice((1, 1, 2, 50))


def _move(draw: random.Random, content: bytearray) -> None:
    start, end = _pick_piece(draw, content)
    piece = content[start:end]
    del content[start:end]
    position = draw.randrange(len(content) + 1)
    content[position:position] = piece


def _overwrite(draw: random.Random, content: bytearray) -> None:
    start, end = _pick_piece(draw, content)
    filler = draw.choice((b"\0", b"\xff", b"OggS", b"\xff\xfb", draw.randbytes(16)))
    content[start:end] = (filler * (end - start))[: end - start]


def _append(draw: random.Random, content: bytearray) -> None:
    content += draw.choice(
        (bytes(4096), b"\xff" * 4096, draw.randbytes(4096), b"ID3\4\0\0\0\0\x0f\0" * 100, bytes(content))
    )


def _splice(draw: random.Random, content: bytearray, other: bytes) -> None:
    start = draw.randrange(len(content))
    content[start:] = other[draw.randrange(len(other)) :]


def _pick_piece(draw: random.Random, content: bytearray) -> tuple[int, int]:
    """Returns start and end of a piece, which is often what lies between the names of two chunks."""
    names = [match.start() for match in FOUR_CHARACTERS.finditer(content[: 1 << 16])]
    if len(names) >= 2 and draw.random() < 0.7:
        start, end = sorted(draw.sample(names, 2))
        return start, min(end, start + 4 * MAX_PIECE_BYTES)
    start = draw.randrange(len(content))
    return start, min(len(content), start + draw.choice((1, 2, 4, 16, 256, MAX_PIECE_BYTES)))


def _mend_checksums(content: bytearray) -> None:
    """Gives the pages of an Ogg file valid checksums, so that what is in them is read."""
    position = 0
    while (position := content.find(b"OggS", position)) >= 0 and position + PAGE_HEADER.size <= len(content):
        segments = content[position + PAGE_HEADER.size - 1]
        lacing = content[position + PAGE_HEADER.size : position + PAGE_HEADER.size + segments]
        page = content[position : position + PAGE_HEADER.size + segments + sum(lacing)]
        set_checksum(page)
        content[position : position + len(page)] = page
        position += len(page)


MUTATIONS: tuple[Mutation, ...] = (
    _field_after_name,
    _field_in_head,
    _flip_bits,
    _truncate,
    _delete,
    _repeat,
    _move,
    _overwrite,
    _append,
)
WEIGHTS = (8, 4, 3, 2, 2, 2, 2, 2, 1)
