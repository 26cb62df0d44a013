"""The information chunk of Core Audio Format files (Apple, Core Audio Format Specification 1.0): pairs of strings."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from export_service.tagging.musical_key import abbreviate_key
from export_service.tagging.riff import move_bytes
from export_service.tagging.tags import FileTags, limit_parts

FILE_HEADER_BYTES = 8
CHUNK_HEADER = struct.Struct(">4sq")
"""Name and size; -1 for samples up to the end of the file."""
COUNT = struct.Struct(">I")
TAG_CHUNKS = frozenset({b"info"})
"""The names of all chunks that tags are written to."""
DISPENSABLE_CHUNKS = frozenset({b"free", b"peak"})
"""The names of the chunks in front of the samples that files of earlier versions have from libsndfile."""


@limit_parts
def iter_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yields name, offset of the content and size in bytes of each chunk."""
    position, end = FILE_HEADER_BYTES, file.seek(0, os.SEEK_END)
    while position + CHUNK_HEADER.size <= end:
        file.seek(position)
        name, size = CHUNK_HEADER.unpack(file.read(CHUNK_HEADER.size))
        yield name, position + CHUNK_HEADER.size, min(size, end - position - CHUNK_HEADER.size)
        if size < 0:
            return
        position += CHUNK_HEADER.size + size


def insert_chunks(path: Path, chunks: bytes) -> None:
    """Puts complete chunks between the description and the samples of a file of libsndfile, in place of what it wrote
    there: free space and peaks, which FFmpeg can't skip in a pipe. Raises OSError.
    """
    with path.open("r+b") as file:
        (_, description, description_size), *_, (_, samples, size) = iter_chunks(file)
        position, start = description + description_size, samples - CHUNK_HEADER.size
        end = samples + size  # libsndfile pads the samples to an even size, which the format does not.
        distance = position + len(chunks) - start
        move_bytes(file, start, end, distance)
        file.seek(position)
        file.write(chunks)
        file.truncate(end + distance)


def encode_info(tags: FileTags) -> bytes:
    """Returns the information chunk; unknown values are left out."""
    texts = {
        "title": tags.title,
        "artist": tags.artist,
        "album": tags.album,
        "genre": tags.genre,
        "tempo": f"{tags.bpm:g}" if tags.bpm else "",
        "key signature": abbreviate_key(tags.key),
        "copyright": tags.license,
        "encoding application": tags.generator,
        "comments": tags.comment,
        "comment": tags.comment,  # As libsndfile and ffmpeg call it.
    }
    pairs = [f"{name}\0{text}\0".encode() for name, text in texts.items() if text]
    content = COUNT.pack(len(pairs)) + b"".join(pairs)
    return CHUNK_HEADER.pack(b"info", len(content)) + content


def read_info(path: Path) -> dict[str, str]:
    """Returns the pairs of the information chunk. Raises OSError."""
    with path.open("rb") as file:
        for name, start, size in iter_chunks(file):
            if name in TAG_CHUNKS:
                file.seek(start + COUNT.size)
                texts = file.read(size - COUNT.size).decode(errors="replace").split("\0")
                return dict(zip(texts[::2], texts[1::2], strict=False))
    return {}
