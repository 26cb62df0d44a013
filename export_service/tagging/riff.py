"""Chunks of WAV and RF64 files, and those of them that contain tags: LIST/INFO and `id3 ` for players, `bext` for
broadcasting, and those of `markers`.

LIST/INFO has no encoding of its own. It is written in UTF-8, which ffmpeg, TagLib and libsndfile read; where that
differs from ASCII, a `CSET` chunk says so.
"""

from __future__ import annotations

import os
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from export_service.dsp.measurement import LoudnessMeasurement
from export_service.tagging import id3, markers
from export_service.tagging.tag_text import to_ascii
from export_service.tagging.tags import FileTags, limit_parts

CHUNK_HEADER = struct.Struct("<4sI")
"""Name and size."""
RIFF_HEADER_BYTES = 12
SIZE, LARGE_SIZE = struct.Struct("<I"), struct.Struct("<Q")
SIZE_OFFSET = 4
DS64_OFFSET, DATA_SIZE_OFFSET = 20, 28
"""Where an RF64 file has the sizes of the whole file and of its samples, in the `ds64` chunk, which is always first."""
IN_DS64 = 0xFFFF_FFFF
"""The size of the samples in the header of their chunk if `ds64` has it."""
TAG_CHUNKS = frozenset({b"bext", b"acid", b"CSET", b"LIST", b"id3 ", b"cue ", b"smpl", b"iXML", b"JUNK"})
"""The names of all chunks that tags are written to."""

INFO_NAMES = {
    "INAM": "title",
    "IART": "artist",
    "IPRD": "album",
    "ICMT": "comment",
    "ISFT": "generator",
    "IGNR": "genre",
    "ICOP": "license",
}
UTF_8_CODE_PAGE = 65001
CODE_PAGE = struct.Struct("<4H")
"""Code page, country, language, dialect; 0 for no particular one."""

BEXT = struct.Struct("<256s32s32s10s8sQH64s5h180x")
"""EBU Tech 3285 version 2, up to the coding history."""
BEXT_VERSION = 2
ORIGINATOR = b"DGX Music"
UNKNOWN_LOUDNESS = 0x7FFF
"""Marks a loudness figure that is not known."""


@limit_parts
def iter_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yields name, offset of the content and size in bytes of each chunk of a WAV or RF64 file."""
    position, end = RIFF_HEADER_BYTES, file.seek(0, os.SEEK_END)
    while position + CHUNK_HEADER.size <= end:
        file.seek(position)
        name, size = CHUNK_HEADER.unpack(file.read(CHUNK_HEADER.size))
        if name == b"data" and size == IN_DS64:
            file.seek(DATA_SIZE_OFFSET)
            (size,) = LARGE_SIZE.unpack(file.read(LARGE_SIZE.size))
        yield name, position + CHUNK_HEADER.size, min(size, end - position - CHUNK_HEADER.size)
        position += CHUNK_HEADER.size + size + size % 2


def write_chunks(path: Path, chunks: bytes) -> None:
    """Overwrites the LIST chunk, a placeholder, with as many of the complete chunks as fit, and appends the others to
    the file. Raises OSError.
    """
    with path.open("r+b") as file:
        found = {name: (start, size) for name, start, size in iter_chunks(file)}
        start, size = found.get(b"LIST", (0, 0))
        fitting = 0
        for end in _chunk_ends(chunks):
            if end <= size:
                fitting = end
        if fitting:
            file.seek(start - CHUNK_HEADER.size)
            file.write(chunks[:fitting] + encode_chunk(b"JUNK", bytes(size + size % 2 - fitting)))
        if len(chunks) > fitting:
            end = file.seek(0, os.SEEK_END)
            file.write(bytes(end % 2) + chunks[fitting:])
            _set_file_size(file)


def _chunk_ends(chunks: bytes) -> Iterator[int]:
    position = 0
    while position < len(chunks):
        _, size = CHUNK_HEADER.unpack_from(chunks, position)
        position += CHUNK_HEADER.size + size + size % 2
        yield position


def _set_file_size(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END) - CHUNK_HEADER.size
    file.seek(0)
    is_rf64 = file.read(SIZE_OFFSET) == b"RF64"
    file.seek(DS64_OFFSET if is_rf64 else SIZE_OFFSET)
    file.write((LARGE_SIZE if is_rf64 else SIZE).pack(size))


def read_tag_chunks(path: Path) -> dict[bytes, list[bytes]]:
    """Returns the contents of the chunks with tags, by name; those within LIST by their own names. Raises OSError."""
    found: dict[bytes, list[bytes]] = defaultdict(list)
    with path.open("rb") as file:
        for name, start, size in iter_chunks(file):
            if name in TAG_CHUNKS:
                file.seek(start)
                content = file.read(size)
                found[name].append(content)
                if name == b"LIST":
                    for inner, inner_content in _iter_list(content):
                        found[inner].append(inner_content)
    return found


def decode_info(chunks: Mapping[bytes, Sequence[bytes]]) -> dict[str, str]:
    """Returns the texts of LIST/INFO, by the names of FileTags, from the chunks of `read_tag_chunks`."""
    return {
        attribute: chunks[name.encode()][0].rstrip(b"\0").decode(errors="replace")
        for name, attribute in INFO_NAMES.items()
        if name.encode() in chunks
    }


def _iter_list(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = SIZE.size  # After its type, or their number.
    while position + CHUNK_HEADER.size <= len(content):
        name, size = CHUNK_HEADER.unpack_from(content, position)
        position += CHUNK_HEADER.size
        yield name, content[position : position + size]
        position += size + size % 2


def encode_chunk(name: bytes, content: bytes) -> bytes:
    """Returns the chunk with its header, padded to an even length."""
    return CHUNK_HEADER.pack(name, len(content)) + content + bytes(len(content) % 2)


def encode_list(kind: bytes, contents: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Returns a LIST chunk of the given type, with the chunks in it."""
    return encode_chunk(b"LIST", kind + b"".join(encode_chunk(name, content) for name, content in contents))


def encode_all(
    tags: FileTags, measurement: LoudnessMeasurement | None, coding_history: str, sample_rate_hz: int, frames: int
) -> bytes:
    """Returns all chunks with tags. Those that readers of every kind know come first."""
    names = (section.name for section in tags.sections)
    is_ascii = all(text.isascii() for text in (*(getattr(tags, name) for name in INFO_NAMES.values()), *names))
    return b"".join(
        [
            encode_bext(tags, measurement, coding_history),
            encode_chunk(b"acid", markers.encode_acid(tags, frames / sample_rate_hz)) if tags.bpm else b"",
            b"" if is_ascii else encode_chunk(b"CSET", CODE_PAGE.pack(UTF_8_CODE_PAGE, 0, 0, 0)),
            encode_info(tags),
            *(encode_markers(tags, sample_rate_hz) if tags.sections else []),
            # Without the sections, because ffmpeg would list them twice.
            encode_chunk(b"id3 ", id3.encode_tag(replace(tags, sections=()), sample_rate_hz)),
        ]
    )


def encode_markers(tags: FileTags, sample_rate_hz: int) -> list[bytes]:
    """Returns the chunks with the sections of the music."""
    labels = markers.encode_labels(tags.sections)
    return [
        encode_chunk(b"cue ", markers.encode_cue(tags.sections)),
        encode_list(b"adtl", ((name, content) for name, contents in labels.items() for content in contents)),
        encode_chunk(b"smpl", markers.encode_sampler(tags.sections, tags.key, sample_rate_hz)),
        encode_chunk(b"iXML", markers.encode_ixml(tags)),
    ]


def encode_info(tags: FileTags) -> bytes:
    """Returns a LIST chunk of type INFO, in UTF-8; unknown values are left out."""
    values = ((name.encode(), getattr(tags, attribute)) for name, attribute in INFO_NAMES.items())
    return encode_list(b"INFO", ((name, text.encode() + b"\0") for name, text in values if text))


def encode_bext(tags: FileTags, measurement: LoudnessMeasurement | None, coding_history: str) -> bytes:
    """Returns the broadcast extension chunk (EBU Tech 3285 version 2) with the loudness figures of the file.

    Date and time are left empty, so that the same generation gives the same file on any day.
    """
    figures: tuple[float | None, ...] = (None,) * 5
    if measurement is not None:
        loudness = measurement.loudness
        figures = (
            loudness.integrated_lufs,
            loudness.range_lu,
            measurement.true_peak_dbtp,
            loudness.max_momentary_lufs,
            loudness.max_short_term_lufs,
        )
    fixed = BEXT.pack(
        to_ascii(tags.description).encode()[:256],
        ORIGINATOR,
        tags.generation_id.replace("-", "").encode(),  # The 32 digits of a UUID fill the field exactly.
        b"",
        b"",
        0,
        BEXT_VERSION,
        b"",
        *map(_to_hundredths, figures),
    )
    history = to_ascii(coding_history).encode()
    # An even length, because libsndfile 1.2.2 fails to parse what follows an odd one in RF64.
    return encode_chunk(b"bext", fixed + history + bytes(len(history) % 2))


def _to_hundredths(figure: float | None) -> int:
    """Returns the figure as `bext` stores it; one that does not fit becomes unknown."""
    hundredths = UNKNOWN_LOUDNESS if figure is None else round(figure * 100)
    return hundredths if abs(hundredths) < UNKNOWN_LOUDNESS else UNKNOWN_LOUDNESS


# Sony Wave64: chunks with 64-bit sizes, named by GUIDs.

GUID_HEADER = struct.Struct("<16sQ")
"""GUID and size, with this header. The next chunk starts at a multiple of 8 bytes."""
GUID_ALIGNMENT = 8
COPY_BYTES = 1 << 20
GUID_SIZE_OFFSET, GUID_FILE_HEADER_BYTES = 16, 40
GUID_SAMPLES = bytes.fromhex("64617461f3acd3118cd100c04f8edb8a")
"""Of the chunk with the samples."""
SUMMARY_LIST = bytes.fromhex("bc945f925a52d21186dc00c04f8edb8a")
"""Of the chunk with the names of LIST/INFO and texts in UTF-16, as ffmpeg reads it."""


def encode_summary_list(tags: FileTags) -> bytes:
    """Returns the summary list chunk of a W64 file; unknown values are left out."""
    texts = [(name, text) for name, attribute in INFO_NAMES.items() if (text := getattr(tags, attribute))]
    content = SIZE.pack(len(texts))
    for name, text in texts:
        # ffmpeg reserves as many bytes for the text in UTF-8, which may be longer, as it has in UTF-16.
        encoded = (text + "\0").encode("utf-16-le").ljust(2 * len(text.encode()) + 2, b"\0")
        content += CHUNK_HEADER.pack(name.encode(), len(encoded)) + encoded
    return GUID_HEADER.pack(SUMMARY_LIST, GUID_HEADER.size + len(content)) + content + _guid_padding(len(content))


@limit_parts
def iter_guid_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yields GUID, offset of the content and its size in bytes of each chunk of a W64 file."""
    position, end = GUID_FILE_HEADER_BYTES, file.seek(0, os.SEEK_END)
    while position + GUID_HEADER.size <= end:
        file.seek(position)
        guid, size = GUID_HEADER.unpack(file.read(GUID_HEADER.size))
        yield guid, position + GUID_HEADER.size, min(size, end - position) - GUID_HEADER.size
        position += max(size, GUID_HEADER.size) + len(_guid_padding(size))


def insert_guid_chunk(path: Path, chunk: bytes) -> None:
    """Inserts a complete chunk into a W64 file, in front of the samples, which libsndfile 1.2.2 reads up to the end of
    the file. Raises OSError.
    """
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        start = next(start for guid, start, _ in iter_guid_chunks(file) if guid == GUID_SAMPLES) - GUID_HEADER.size
        move_bytes(file, start, end, len(chunk))
        file.seek(start)
        file.write(chunk)
        file.seek(GUID_SIZE_OFFSET)
        file.write(LARGE_SIZE.pack(end + len(chunk)))


def move_bytes(file: BinaryIO, start: int, end: int, distance: int) -> None:
    """Copies the bytes of the file from `start` up to `end` to a place further back, or with a negative distance,
    further to the front; both may overlap. Raises OSError.
    """
    positions = range(start, end, COPY_BYTES)
    for position in positions if distance < 0 else reversed(positions):
        file.seek(position)
        content = file.read(min(COPY_BYTES, end - position))
        file.seek(position + distance)
        file.write(content)


def read_summary_list(path: Path) -> dict[str, str]:
    """Returns the texts of the summary list of a W64 file, by the names of FileTags. Raises OSError."""
    with path.open("rb") as file:
        for guid, start, size in iter_guid_chunks(file):
            if guid == SUMMARY_LIST:
                file.seek(start)
                texts = _iter_list(file.read(size))
                return {INFO_NAMES[name.decode()]: text.decode("utf-16-le").rstrip("\0") for name, text in texts}
    return {}


def _guid_padding(size: int) -> bytes:
    return bytes(-size % GUID_ALIGNMENT)
