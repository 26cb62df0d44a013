"""Where a C2PA manifest is embedded in a file: in a chunk of its own in WAV, in an ID3 frame in MP3 and FLAC.

Content Credentials: C2PA Technical Specification, appendix A.3. The C2PA library embeds manifests too, but reads the
whole file into memory.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import BinaryIO

from export_service.retagging.chunk_files import MANIFEST_CHUNK
from export_service.retagging.splicing import Piece, Span, iter_bytes
from export_service.tagging import id3
from export_service.tagging.riff import CHUNK_HEADER

OBJECT_HEADER = b"\0application/c2pa\0c2pa\0c2pa manifest store\0"
"""Start of a general encapsulated object: encoding, media type, file name, description."""

EMBEDDABLE = ("WAV", "FLAC", "MP3")
"""Containers that `layout_slot` supports, by soundfile's names."""


@dataclass(frozen=True)
class SlotLayout:
    """A copy of a file with a slot for its manifest, which the manifest's hash does not cover."""

    before: list[Piece]
    header: bytes
    """What precedes the manifest in the slot."""
    size: int
    """Size of the manifest."""
    after: list[Piece]

    @property
    def slot(self) -> tuple[int, int]:
        """Position and size of the slot; the position does not depend on the size of the manifest."""
        return sum(len(piece) for piece in self.before), len(self.header) + self.size

    def write(self, source: BinaryIO, destination: BinaryIO) -> bytes:
        """Writes the copy, with zeros for the manifest, and returns the SHA-256 of what it covers. Raises OSError.

        Memory use does not grow with the file.
        """
        sha256 = hashlib.sha256()
        for hashed, unhashed in ((self.before, self.header + bytes(self.size)), (self.after, b"")):
            for block in iter_bytes(source, hashed):
                sha256.update(block)
                destination.write(block)
            destination.write(unhashed)
        return sha256.digest()


def layout_slot(source: BinaryIO, container: str, size: int) -> SlotLayout:
    """Lays out a copy of an open file with room for a manifest of this size."""
    return _layout_wav(source, size) if container == "WAV" else _layout_id3(source, size)


def _layout_wav(source: BinaryIO, size: int) -> SlotLayout:
    """The manifest is in the last chunk."""
    end = source.seek(0, os.SEEK_END)
    padding, trailer = bytes(end % 2), bytes(size % 2)
    chunk = CHUNK_HEADER.pack(MANIFEST_CHUNK, size)
    riff_bytes = end + len(padding) + len(chunk) + size + len(trailer) - CHUNK_HEADER.size
    head = CHUNK_HEADER.pack(b"RIFF", riff_bytes)
    return SlotLayout([head, Span(CHUNK_HEADER.size, end), padding], chunk, size, [trailer])


def _layout_id3(source: BinaryIO, size: int) -> SlotLayout:
    """The manifest is in the first frame of the tag, which a FLAC file does not have otherwise."""
    tag_end, end = id3.find_end(source), source.seek(0, os.SEEK_END)
    version, revision, flags = id3.UTF_16_VERSION, 0, 0
    if tag_end:
        source.seek(0)
        _, version, revision, flags, _ = id3.HEADER.unpack(source.read(id3.HEADER.size))
    start = min(id3.HEADER.size, tag_end)
    content_bytes = len(OBJECT_HEADER) + size
    is_utf_8 = version == id3.UTF_8_VERSION
    frame_size = id3.encode_size(content_bytes) if is_utf_8 else content_bytes.to_bytes(4)
    frame = id3.FRAME.pack(b"GEOB", frame_size, 0) + OBJECT_HEADER
    tag_size = id3.encode_size(tag_end - start + len(frame) + size)
    head = id3.HEADER.pack(b"ID3", version, revision, flags, tag_size)
    return SlotLayout([head, frame], b"", size, [Span(start, end)])
