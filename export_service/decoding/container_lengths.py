"""Repairs how many bytes of samples a file says that it has: fills in unknown lengths, which programs write into a pipe
because they can't seek back, and detects truncated files.

libsndfile takes some files of unknown length for empty, and reads truncated ones as if they were complete.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from export_service.decoding.decoded_audio import DecodeError
from export_service.decoding.file_view import FileView
from export_service.decoding.signatures import Container, is_mpeg_audio_frame
from export_service.tagging.riff import DS64_OFFSET, GUID_SAMPLES, IN_DS64

MAX_CHUNKS_BEFORE_SAMPLES = 10_000
MIN_UNKNOWN_BYTES = 0x7F00_0000
"""A 32-bit length from here on means "unknown" if the file is shorter: sox writes 0x7FFFF000, for AIFF 0x7F000008,
others 0x80000000, ffmpeg 0xFFFFFFFF."""
MIN_UNKNOWN_BYTES_64 = 2**62
DS64_SIZES = struct.Struct("<QQ")
"""Of the file without its first chunk header, and of the samples."""
AU_HEADER = struct.Struct(">4sII")
"""Magic, offset of the samples, and their size."""
AU_SIZE_OFFSET, AU_UNKNOWN_SIZE = 8, b"\xff" * 4
W64_MAGIC_BYTES = 16
FLAC_LENGTH_OFFSET, FLAC_LENGTH_BYTES, FLAC_LENGTH_MASK = 21, 5, 2**36 - 1
ID3V1_BYTES = 128
MP3_CLAIMED_FACTOR = 64
"""The longest MP3 file that libsndfile could expect, relative to the actual one: bit rates of frames differ by less."""
MP3_HEADER_BYTES, MP3_SIDE_INFORMATION = 4, (9, 17, 32)
"""Bytes between the header of the first frame and its Xing header, which depend on the version and the channels."""


@dataclass(frozen=True)
class ChunkLayout:
    """How a container stores its chunks."""

    header: str
    """Format of a chunk's header, for `struct`: the name, then the size."""
    first_chunk: int
    """Offset of the first chunk."""
    samples: bytes
    """Name of the chunk with the samples."""
    counts_header: bool = False
    """Whether a chunk's size includes its header."""
    empty_bytes: int = 0
    """Bytes of the chunk with the samples that come before them."""
    alignment: int = 2
    """Each chunk starts at a multiple of this many bytes."""
    min_unknown_bytes: int = MIN_UNKNOWN_BYTES
    """A size from here on means "unknown" if the file is shorter."""


RIFF = ChunkLayout("<4sI", 12, b"data")
RIFX = ChunkLayout(">4sI", 12, b"data")
AIFF = ChunkLayout(">4sI", 12, b"SSND", empty_bytes=8)
W64 = ChunkLayout("<16sQ", 40, GUID_SAMPLES, counts_header=True, alignment=8, min_unknown_bytes=MIN_UNKNOWN_BYTES_64)
CAF = ChunkLayout(">4sQ", 8, b"data", empty_bytes=4, alignment=1, min_unknown_bytes=MIN_UNKNOWN_BYTES_64)


@dataclass(frozen=True)
class SampleChunk:
    """The chunk with the samples."""

    header_offset: int
    start: int
    size: int
    """As the header says, without the header."""


def repair_lengths(file: FileView, container: Container) -> FileView:
    """Returns a view of the file in which libsndfile finds all samples. Raises DecodeError if some are missing."""
    match container:
        case Container.WAV:
            is_big_endian = file.read_at(0, 4) == b"RIFX"
            return _repair_chunk(file, RIFX if is_big_endian else RIFF)
        case Container.RF64:
            return _repair_rf64(file)
        case Container.AIFF:
            return _repair_chunk(file, AIFF)
        case Container.W64:
            return _repair_chunk(_skip_repeated_headers(file, W64), W64)
        case Container.CAF:
            return _repair_chunk(_skip_repeated_headers(file, CAF), CAF)
        case Container.AU:
            return _repair_au(file)
        case Container.FLAC:
            return _repair_flac(file)
        case Container.MP3:
            return _repair_mp3(file)
    return file


def _repair_chunk(file: FileView, layout: ChunkLayout) -> FileView:
    chunk = _find_samples(file, layout)
    rest = file.size - chunk.start
    if not _is_unknown(file, chunk.start, chunk.size, layout):
        _require_complete(chunk.size, rest)
        # Of several chunks with samples, libsndfile would take the last.
        return file.part(end=chunk.start + chunk.size) if layout in (RIFF, RIFX) else file
    header = struct.Struct(layout.header)
    size = rest + header.size if layout.counts_header else rest
    return file.part(patches={chunk.header_offset: header.pack(layout.samples, size)})


def _repair_rf64(file: FileView) -> FileView:
    magic = {0: b"RF64"}  # libsndfile does not know its other name, BW64.
    chunk = _find_samples(file, RIFF)
    if chunk.size != IN_DS64:
        return _repair_chunk(file.part(patches=magic), RIFF)
    _, size = DS64_SIZES.unpack(_read(file, DS64_OFFSET, DS64_SIZES.size))
    rest = file.size - chunk.start
    if size >= MIN_UNKNOWN_BYTES_64 or (size == 0 and rest):
        return file.part(patches=magic | {DS64_OFFSET: DS64_SIZES.pack(file.size - 8, rest)})
    _require_complete(size, rest)
    return file.part(patches=magic)


def _skip_repeated_headers(file: FileView, layout: ChunkLayout) -> FileView:
    """Returns the part with the last header and the samples: libsndfile, and with it sox, writes the header before the
    first samples several times and once more at the end if it writes into a pipe.
    """
    header_bytes = _find_samples(file, layout).start + layout.empty_bytes
    magic = file.read_at(0, layout.first_chunk)[:W64_MAGIC_BYTES]
    end = file.size - header_bytes
    if end <= header_bytes or not file.read_at(end, len(magic)) == file.read_at(header_bytes, len(magic)) == magic:
        return file
    start = header_bytes
    while file.read_at(start + header_bytes, len(magic)) == magic and start + header_bytes < end:
        start += header_bytes
    return file.part(start, end)


def read_flac_length(file: FileView) -> int | None:
    """Returns how many frames the header of a FLAC file says that it has; None if it does not say."""
    return int.from_bytes(file.read_at(FLAC_LENGTH_OFFSET, FLAC_LENGTH_BYTES)) & FLAC_LENGTH_MASK or None


def _repair_flac(file: FileView) -> FileView:
    """Hides the length, where libsndfile would stop, and an ID3v1 tag, which it takes for a damaged frame."""
    field = int.from_bytes(file.read_at(FLAC_LENGTH_OFFSET, FLAC_LENGTH_BYTES)) & ~FLAC_LENGTH_MASK
    has_tag = file.read_at(max(0, file.size - ID3V1_BYTES), 3) == b"TAG"
    return file.part(
        end=file.size - ID3V1_BYTES if has_tag else None,
        patches={FLAC_LENGTH_OFFSET: field.to_bytes(FLAC_LENGTH_BYTES)},
    )


def _repair_mp3(file: FileView) -> FileView:
    """Lets libsndfile read to the end: it stops at the length in the header, which is that of the first file if several
    were joined to one, or without one at what it estimates from the first frame and the size.
    """
    header = find_xing_header(file)
    if header is None or not header.frames:
        return file.part(claimed_size=file.size * MP3_CLAIMED_FACTOR)
    after = file.read_at(header.audio_bytes, 4) if header.audio_bytes else b""
    if is_mpeg_audio_frame(after) or after[:3] == b"ID3":
        return file.part(patches={header.offset: bytes(4)}, claimed_size=file.size * MP3_CLAIMED_FACTOR)
    return file


@dataclass(frozen=True)
class XingHeader:
    """What an encoder writes into the first frame of an MP3 file."""

    offset: int
    frames: int
    """MPEG frames; 0 if it does not say."""
    audio_bytes: int
    """0 if it does not say."""


def find_xing_header(file: FileView) -> XingHeader | None:
    """Returns the header of that name, also called Info or LAME header; None if there is none."""
    head = file.read_at(0, MP3_HEADER_BYTES + max(MP3_SIDE_INFORMATION) + 16)
    for side_information in MP3_SIDE_INFORMATION:
        offset = MP3_HEADER_BYTES + side_information
        if head[offset : offset + 4] in (b"Xing", b"Info") and len(head) >= offset + 16:
            flags, *counts = struct.unpack_from(">III", head, offset + 4)
            frames = counts.pop(0) if flags & 1 else 0
            return XingHeader(offset, frames, counts.pop(0) if flags & 2 else 0)
    return None


def _repair_au(file: FileView) -> FileView:
    _, start, size = AU_HEADER.unpack(_read(file, 0, AU_HEADER.size))
    if file.read_at(0, 4) != b".snd" or size >= MIN_UNKNOWN_BYTES:
        return file
    _require_complete(size, file.size - start)
    return file if size else file.part(patches={AU_SIZE_OFFSET: AU_UNKNOWN_SIZE})


def _find_samples(file: FileView, layout: ChunkLayout) -> SampleChunk:
    header = struct.Struct(layout.header)
    offset = layout.first_chunk
    for _ in range(MAX_CHUNKS_BEFORE_SAMPLES):
        head = file.read_at(offset, header.size)
        if len(head) < header.size:
            break
        name, size = header.unpack(head)
        if layout.counts_header:
            size -= header.size
        if name == layout.samples:
            return SampleChunk(offset, offset + header.size, size)
        if size < 0:
            break
        offset += header.size + size
        offset += -offset % layout.alignment
    raise DecodeError("it ends before its samples begin")


def _is_unknown(file: FileView, start: int, size: int, layout: ChunkLayout) -> bool:
    rest = file.size - start
    if size >= layout.min_unknown_bytes or size < 0:
        return size != rest
    return size <= layout.empty_bytes < rest and not _is_chunk(file, start + size, layout)


def _is_chunk(file: FileView, offset: int, layout: ChunkLayout) -> bool:
    """Returns whether another chunk begins there, so that the one before it is really empty."""
    header = struct.Struct(layout.header)
    head = file.read_at(offset, header.size)
    if len(head) < header.size:
        return False
    name: bytes
    name, size = header.unpack(head)
    end: int = offset + size + (0 if layout.counts_header else header.size)
    return all(0x20 <= byte < 0x7F for byte in name[:4]) and end <= file.size


def _require_complete(size: int, rest: int) -> None:
    if size > rest:
        raise DecodeError(f"the last {size - rest} of its {size} bytes of samples are missing")


def _read(file: FileView, offset: int, count: int) -> bytes:
    data = file.read_at(offset, count)
    if len(data) < count:
        raise DecodeError("it ends before its samples begin")
    return data
