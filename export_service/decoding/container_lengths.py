"""How many bytes of samples a file says it has: unknown lengths, which programs write into a pipe, are filled in, and
truncated files are found out. libsndfile takes some of the first for empty, and reads the latter as if they were whole.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from export_service.decoding.decoded_audio import DecodeError
from export_service.decoding.file_view import FileView
from export_service.decoding.signatures import Container

MAX_CHUNKS = 10_000
"""That come before the samples."""
MIN_UNKNOWN_BYTES = 0x7FFF_0000
"""A 32-bit length from here on means "unknown" if the file is shorter: sox writes 0x7FFFF000 and the like, others
0x80000000, ffmpeg 0xFFFFFFFF."""
MIN_UNKNOWN_BYTES_64 = 2**62
IS_IN_DS64 = 0xFFFF_FFFF
DS64_SIZES = struct.Struct("<QQ")
DS64_SIZES_OFFSET = 20
AU_HEADER = struct.Struct(">4sII")

Patches = dict[int, bytes]


@dataclass(frozen=True)
class ChunkLayout:
    """How a container stores its chunks."""

    header: str
    """For `struct`: the name, then the size."""
    first: int
    """Offset of the first chunk."""
    audio: bytes
    """Name of the chunk with the samples."""
    counts_header: bool = False
    """The size includes the header."""
    alignment: int = 2
    min_unknown_bytes: int = MIN_UNKNOWN_BYTES


W64_GUID = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
RIFF = ChunkLayout("<4sI", 12, b"data")
RIFX = ChunkLayout(">4sI", 12, b"data")
AIFF = ChunkLayout(">4sI", 12, b"SSND")
W64 = ChunkLayout("<16sQ", 40, W64_GUID, counts_header=True, alignment=8, min_unknown_bytes=MIN_UNKNOWN_BYTES_64)
CAF = ChunkLayout(">4sQ", 8, b"data", alignment=1, min_unknown_bytes=MIN_UNKNOWN_BYTES_64)


@dataclass(frozen=True)
class AudioChunk:
    """The chunk with the samples."""

    header_offset: int
    start: int
    size: int
    """As the header says, without the header."""


def repair_lengths(file: FileView, container: Container) -> Mapping[int, bytes]:
    """Returns what to patch so that libsndfile reads all samples: offset → bytes. Raises DecodeError if some are
    missing.
    """
    match container:
        case Container.WAV:
            is_big_endian = _read(file, 0, 4) == b"RIFX"
            return _repair_chunk(file, RIFX if is_big_endian else RIFF)
        case Container.RF64:
            return _repair_rf64(file)
        case Container.AIFF:
            return _repair_chunk(file, AIFF)
        case Container.W64:
            return _repair_chunk(file, W64)
        case Container.CAF:
            return _repair_chunk(file, CAF)
        case Container.AU:
            _check_au(file)
    return {}


def _repair_chunk(file: FileView, layout: ChunkLayout) -> Patches:
    chunk = _find_audio(file, layout)
    rest = file.size - chunk.start
    if not _is_unknown(file, chunk.start, chunk.size, layout):
        _require_complete(chunk.size, rest)
        return {}
    header = struct.Struct(layout.header)
    size = rest + header.size if layout.counts_header else rest
    return {chunk.header_offset: header.pack(layout.audio, size)}


def _repair_rf64(file: FileView) -> Patches:
    magic: Patches = {0: b"RF64"}  # libsndfile does not know its other name, BW64.
    chunk = _find_audio(file, RIFF)
    if chunk.size != IS_IN_DS64:
        return magic | _repair_chunk(file, RIFF)
    _, size = DS64_SIZES.unpack(_read(file, DS64_SIZES_OFFSET, DS64_SIZES.size))
    rest = file.size - chunk.start
    if size >= MIN_UNKNOWN_BYTES_64 or (size == 0 and rest):
        return magic | {DS64_SIZES_OFFSET: DS64_SIZES.pack(file.size - 8, rest)}
    _require_complete(size, rest)
    return magic


def _check_au(file: FileView) -> None:
    _, start, size = AU_HEADER.unpack(_read(file, 0, AU_HEADER.size))
    if _read(file, 0, 4) == b".snd" and size < MIN_UNKNOWN_BYTES:
        _require_complete(size, file.size - start)


def _find_audio(file: FileView, layout: ChunkLayout) -> AudioChunk:
    header = struct.Struct(layout.header)
    offset = layout.first
    for _ in range(MAX_CHUNKS):
        head = _read(file, offset, header.size, may_end=True)
        if len(head) < header.size:
            break
        name, size = header.unpack(head)
        if layout.counts_header:
            size -= header.size
        if name == layout.audio:
            return AudioChunk(offset, offset + header.size, size)
        if size < 0:
            break
        offset += header.size + size
        offset += -offset % layout.alignment
    raise DecodeError("it ends before its samples begin")


def _is_unknown(file: FileView, start: int, size: int, layout: ChunkLayout) -> bool:
    rest = file.size - start
    if size >= layout.min_unknown_bytes or size < 0:
        return size != rest
    return size == 0 and rest > 0 and not _is_chunk(file, start, layout)


def _is_chunk(file: FileView, offset: int, layout: ChunkLayout) -> bool:
    """Returns whether another chunk begins there, so that the one before it is really empty."""
    header = struct.Struct(layout.header)
    head = _read(file, offset, header.size, may_end=True)
    if len(head) < header.size:
        return False
    name: bytes
    name, size = header.unpack(head)
    end: int = offset + size + (0 if layout.counts_header else header.size)
    return all(0x20 <= byte < 0x7F for byte in name[:4]) and end <= file.size


def _require_complete(size: int, rest: int) -> None:
    if size > rest:
        raise DecodeError(f"the last {size - rest} of its {size} bytes of samples are missing")


def _read(file: FileView, offset: int, count: int, may_end: bool = False) -> bytes:
    file.seek(offset, os.SEEK_SET)
    data = file.read(count) or b""
    if len(data) < count and not may_end:
        raise DecodeError("it ends before its samples begin")
    return data
