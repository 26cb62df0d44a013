"""Files that consist of chunks (WAV, RF64, AIFF, CAF, W64), laid out with other tags."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from export_service.retagging.splicing import Layout, Patch, Piece, Span
from export_service.tagging import aiff, caf, riff

MANIFEST_CHUNK = b"C2PA"
"""Of WAV, with Content Credentials (C2PA Technical Specification, A.3)."""
UNCHANGED_RIFF_CHUNKS = frozenset({b"bext", b"acid"})
"""Those with tags that can't be edited, which are taken over. The first also has the loudness of the file."""
UNCHANGED_AIFF_CHUNKS = frozenset({b"MARK", b"INST", b"basc"})


@dataclass(frozen=True)
class ChunkFormat:
    """How a container orders its chunks."""

    iter_chunks: Callable[[BinaryIO], Iterator[tuple[bytes, int, int]]]
    """Yields name, offset of the content and its size of each chunk."""
    file_header_bytes: int
    chunk_header_bytes: int
    alignment: int
    samples: bytes
    """Name of the chunk with the samples."""
    replaced: frozenset[bytes]
    """Names of the chunks that are not taken over."""
    size_field: tuple[int, str, int] | None = None
    """Position and format of the file's size, and the bytes that it does not count."""


WAV = ChunkFormat(
    riff.iter_chunks,
    riff.RIFF_HEADER_BYTES,
    riff.CHUNK_HEADER.size,
    2,
    b"data",
    riff.TAG_CHUNKS - UNCHANGED_RIFF_CHUNKS | {MANIFEST_CHUNK},
    (riff.SIZE_OFFSET, "<I", 8),
)
FORMATS = {
    b"RIFF": WAV,
    b"RF64": ChunkFormat(**{**vars(WAV), "size_field": (riff.DS64_OFFSET, "<Q", 8)}),
    b"FORM": ChunkFormat(
        aiff.iter_chunks,
        aiff.FORM_HEADER_BYTES,
        aiff.CHUNK_HEADER.size,
        2,
        b"SSND",
        aiff.TAG_CHUNKS - UNCHANGED_AIFF_CHUNKS,
        (aiff.SIZE_OFFSET, ">I", 8),
    ),
    b"caff": ChunkFormat(
        caf.iter_chunks,
        caf.FILE_HEADER_BYTES,
        caf.CHUNK_HEADER.size,
        1,
        b"data",
        caf.TAG_CHUNKS | caf.DISPENSABLE_CHUNKS,
    ),
    b"riff": ChunkFormat(
        riff.iter_guid_chunks,
        riff.GUID_FILE_HEADER_BYTES,
        riff.GUID_HEADER.size,
        riff.GUID_ALIGNMENT,
        riff.GUID_SAMPLES,
        frozenset({riff.SUMMARY_LIST}),
        (riff.GUID_SIZE_OFFSET, "<Q", 0),
    ),
}
"""By the first four bytes of the file."""


def layout_chunk_file(source: BinaryIO, tags: bytes) -> Layout:
    """Lays out a copy of an open file with other tags, which are chunks as `encode_tags` returns them. They precede the
    samples.
    """
    source.seek(0)
    chunk_format = FORMATS[source.read(4)]
    end = source.seek(0, io.SEEK_END)
    kept = [(name, span) for name, span in _iter_spans(source, chunk_format, end) if name not in chunk_format.replaced]
    pieces: list[Piece] = [Span(0, chunk_format.file_header_bytes)]
    for name, span in kept:
        if name == chunk_format.samples:
            pieces += _new_chunks(chunk_format, tags, {name for name, _ in kept})
        pieces.append(span)
    if chunk_format.size_field is None:
        return Layout(pieces)
    position, encoding, uncounted = chunk_format.size_field
    size = sum(len(piece) for piece in pieces) - uncounted
    return Layout(pieces, (Patch(position, struct.pack(encoding, size)),))


def _new_chunks(chunk_format: ChunkFormat, tags: bytes, kept: Collection[bytes]) -> list[Piece]:
    """Returns those of the encoded chunks that are not kept."""
    content = bytes(chunk_format.file_header_bytes) + tags
    chunks = _iter_spans(io.BytesIO(content), chunk_format, len(content))
    return [content[span.start : span.end] for name, span in chunks if name not in kept]


def _iter_spans(source: BinaryIO, chunk_format: ChunkFormat, end: int) -> Iterator[tuple[bytes, Span]]:
    """Yields name and extent of each chunk, with its header and what fills it up to the next one."""
    for name, start, size in chunk_format.iter_chunks(source):
        next_start = end if size < 0 else start + size + -(start + size) % chunk_format.alignment
        yield name, Span(start - chunk_format.chunk_header_bytes, min(next_start, end))
