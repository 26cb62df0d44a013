"""Where a C2PA manifest is embedded in a file: in a chunk of its own in WAV, in an ID3 frame in MP3 and FLAC.

Content Credentials: C2PA Technical Specification, appendix A.3. The C2PA library embeds manifests too, but reads the
whole file into memory.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

from export_service.retagging.splicing import Piece, Span, iter_bytes
from export_service.tagging.riff import CHUNK_HEADER

CHUNK_NAME = b"C2PA"
ID3_HEADER = struct.Struct(">3sBBB4s")
"""Identifier, version and revision, flags, and the size of all frames as four groups of seven bits."""
ID3_FRAME = struct.Struct(">4s4sH")
"""Name, size of the content, flags."""
ID3_VERSION = 3
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
    chunk = CHUNK_HEADER.pack(CHUNK_NAME, size)
    riff_bytes = end + len(padding) + len(chunk) + size + len(trailer) - CHUNK_HEADER.size
    head = CHUNK_HEADER.pack(b"RIFF", riff_bytes)
    return SlotLayout([head, Span(CHUNK_HEADER.size, end), padding], chunk, size, [trailer])


def _layout_id3(source: BinaryIO, size: int) -> SlotLayout:
    """The manifest is in the first frame of the tag, which a FLAC file does not have otherwise."""
    end = source.seek(0, os.SEEK_END)
    source.seek(0)
    head = source.read(ID3_HEADER.size)
    version, revision, flags, frames_bytes, start = ID3_VERSION, 0, 0, 0, 0
    if head[:3] == b"ID3":
        _, version, revision, flags, synchsafe = ID3_HEADER.unpack(head)
        frames_bytes, start = decode_synchsafe(synchsafe), ID3_HEADER.size
    content_bytes = len(OBJECT_HEADER) + size
    frame_size = encode_synchsafe(content_bytes) if version > ID3_VERSION else content_bytes.to_bytes(4, "big")
    frame = ID3_FRAME.pack(b"GEOB", frame_size, 0) + OBJECT_HEADER
    tag_size = encode_synchsafe(frames_bytes + len(frame) + size)
    head = ID3_HEADER.pack(b"ID3", version, revision, flags, tag_size)
    return SlotLayout([head, frame], b"", size, [Span(start, end)])


def decode_synchsafe(data: bytes) -> int:
    """Returns the number whose seven-bit groups are in `data`, as ID3v2 stores sizes."""
    number = 0
    for byte in data:
        number = number << 7 | byte
    return number


def encode_synchsafe(number: int) -> bytes:
    """Returns a number below 2²⁸ as four groups of seven bits."""
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))
