"""Chunks of AIFF and AIFF-C files that contain tags: text chunks, an `ID3 ` chunk, and markers with a loop.

The standard's text chunks are for ASCII, and readers differ in what they take other bytes for. A text that is not ASCII
is therefore only in the ID3 tag; the annotation, which discloses that the file is AI-generated, always exists.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from export_service.tagging import id3
from export_service.tagging.markers import BEAT_UNIT, BEATS_PER_BAR, root_note
from export_service.tagging.sections import Section, is_loop
from export_service.tagging.tag_text import to_ascii
from export_service.tagging.tags import FileTags, limit_parts

CHUNK_HEADER = struct.Struct(">4sI")
"""Name and size."""
FORM_HEADER_BYTES = 12
SIZE = struct.Struct(">I")
SIZE_OFFSET = 4
TEXT_NAMES = {b"NAME": "title", b"AUTH": "artist", b"(c) ": "license"}
TAG_CHUNKS = frozenset({*TEXT_NAMES, b"ANNO", b"ID3 ", b"MARK", b"INST", b"basc"})
"""The names of all chunks that tags are written to."""

COMMON = struct.Struct(">hIh")
"""Start of the COMM chunk: channels, frames, bits of a sample."""
SAMPLES_OFFSET = 8
"""Of the samples in the SSND chunk."""
COUNT = struct.Struct(">H")
MARKER = struct.Struct(">HIB")
"""Id, frame, length of the name, which follows."""
MAX_NAME_BYTES = 254
"""Even, so that the name with its length and a pad byte is, too."""
INSTRUMENT = struct.Struct(">BbBBBBh3H3H")
"""Root note, detuning, lowest and highest note and velocity, gain in dB; play mode, begin and end marker of the sustain
loop and of the release loop."""
FORWARD_LOOP = 1
BASIC_LOOP = struct.Struct(">IIHHHHH66x")
"""Version, beats, root note, scale, numerator and denominator of the metre, 0 for a loop. Apple Loops have it;
there is no published specification, and this is how libsndfile reads it."""
MINOR_SCALE, MAJOR_SCALE, NO_SCALE = 1, 2, 3


@limit_parts
def iter_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yields name, offset of the content and size in bytes of each chunk."""
    position, end = FORM_HEADER_BYTES, file.seek(0, os.SEEK_END)
    while position + CHUNK_HEADER.size <= end:
        file.seek(position)
        name, size = CHUNK_HEADER.unpack(file.read(CHUNK_HEADER.size))
        yield name, position + CHUNK_HEADER.size, min(size, end - position - CHUNK_HEADER.size)
        position += CHUNK_HEADER.size + size + size % 2


def append_chunks(path: Path, chunks: bytes) -> None:
    """Appends complete chunks to a file that libsndfile wrote, and corrects the size of its samples. Raises OSError."""
    with path.open("r+b") as file:
        _correct_sample_size(file)
        end = file.seek(0, os.SEEK_END)
        file.write(bytes(end % 2) + chunks)
        size = file.tell() - CHUNK_HEADER.size
        file.seek(SIZE_OFFSET)
        file.write(SIZE.pack(size))


def _correct_sample_size(file: BinaryIO) -> None:
    """libsndfile 1.2.2 counts the pad byte after an odd number of bytes as one of the samples."""
    chunks = {name: start for name, start, _ in iter_chunks(file)}
    file.seek(chunks[b"COMM"])
    channels, frames, bits = COMMON.unpack(file.read(COMMON.size))
    file.seek(chunks[b"SSND"] - SIZE.size)
    file.write(SIZE.pack(SAMPLES_OFFSET + frames * channels * bits // 8))


def read_tag_chunks(path: Path) -> dict[bytes, bytes]:
    """Returns the contents of the chunks with tags, by name. Raises OSError."""
    found = {}
    with path.open("rb") as file:
        for name, start, size in iter_chunks(file):
            if name in TAG_CHUNKS:
                file.seek(start)
                found[name] = file.read(size)
    return found


def encode_all(tags: FileTags, sample_rate_hz: int) -> bytes:
    """Returns all chunks with tags."""
    texts = ((name, getattr(tags, attribute)) for name, attribute in TEXT_NAMES.items())
    chunks = [_encode_chunk(name, text.encode()) for name, text in texts if text and text.isascii()]
    chunks.append(_encode_chunk(b"ANNO", to_ascii(tags.comment).encode()))
    if is_loop(tags.sections) and tags.bpm:
        chunks.append(_encode_chunk(b"basc", _encode_basic_loop(tags, sample_rate_hz)))
    if tags.sections:
        loop = 1 + max(
            range(len(tags.sections)), key=lambda i: tags.sections[i].end_frame - tags.sections[i].start_frame
        )
        chunks += [
            _encode_chunk(b"MARK", _encode_markers(tags.sections, loop)),
            _encode_chunk(b"INST", _encode_instrument(tags.key, loop, len(tags.sections) + 1)),
        ]
    return b"".join([*chunks, _encode_chunk(b"ID3 ", id3.encode_tag(tags, sample_rate_hz))])


def _encode_basic_loop(tags: FileTags, sample_rate_hz: int) -> bytes:
    seconds = tags.sections[0].end_frame / sample_rate_hz
    mode = tags.key.rpartition(" ")[2]
    scale = {"minor": MINOR_SCALE, "major": MAJOR_SCALE}.get(mode, NO_SCALE)
    beats = max(round(seconds * tags.bpm / 60), 1)
    return BASIC_LOOP.pack(1, beats, root_note(tags.key), scale, BEATS_PER_BAR, BEAT_UNIT, 0)


def _encode_markers(sections: Sequence[Section], loop: int) -> bytes:
    """Returns a marker at the start of each section, numbered from 1, and one at the end of section number `loop`."""
    named = [(section.start_frame, section.name) for section in sections]
    named.append((sections[loop - 1].end_frame, f"{sections[loop - 1].name} end"))
    markers = []
    for number, (frame, name) in enumerate(named, 1):
        text = to_ascii(name).encode()[:MAX_NAME_BYTES]
        markers.append(MARKER.pack(number, frame, len(text)) + text + bytes((len(text) + 1) % 2))
    return COUNT.pack(len(named)) + b"".join(markers)


def _encode_instrument(key: str, begin: int, end: int) -> bytes:
    return INSTRUMENT.pack(root_note(key), 0, 0, 127, 1, 127, 0, FORWARD_LOOP, begin, end, 0, 0, 0)


def _encode_chunk(name: bytes, content: bytes) -> bytes:
    return CHUNK_HEADER.pack(name, len(content)) + content + bytes(len(content) % 2)
