"""ID3 tags of MP3 files: version 2.3, which every player reads, and version 1.

libsndfile's LAME encoder labels UTF-8 text as Latin-1, and can write neither tempo nor key.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from export_service.tagging.musical_key import abbreviate_key
from export_service.tagging.tags import FileTags

HEADER = struct.Struct(">3sHB4s")
"""Identifier, version, flags, and the size of all frames as four groups of seven bits."""
FRAME = struct.Struct(">4sIH")
"""Name, size of the content, flags."""
LATIN_1, UTF_16 = b"\0", b"\1"
LANGUAGE = b"eng"
VERSION_1 = struct.Struct("<3s30s30s30s4s30sB")
"""Identifier, title, artist, album, year, comment, genre."""
NO_GENRE = 255


def encode_frames(tags: FileTags) -> bytes:
    """Encodes the tags as ID3v2.3 frames; unknown values are left out."""
    texts = {
        b"TIT2": tags.title,
        b"TPE1": tags.artist,
        b"TCON": tags.genre,
        b"TCOP": tags.license,
        b"TSSE": tags.generator,
        b"TBPM": f"{tags.bpm:.0f}" if tags.bpm else "",  # The standard requires an integer.
        b"TKEY": abbreviate_key(tags.key),
    }
    comment = _encode_frame(b"COMM", *_encode_texts("", tags.comment), before_text=LANGUAGE)
    return b"".join(_encode_frame(name, *_encode_texts(text)) for name, text in texts.items() if text) + comment


def replace_tags(path: Path, frames: bytes, tags: FileTags) -> None:
    """Overwrites the frames of the file, which must be longer, and its version 1 tag. Raises OSError."""
    with path.open("r+b") as file:
        _, _, _, size = HEADER.unpack(file.read(HEADER.size))
        space = sum(part << shift for part, shift in zip(size, (21, 14, 7, 0), strict=True))
        file.write(frames.ljust(space, b"\0"))
        file.seek(-VERSION_1.size, os.SEEK_END)
        texts = (text.encode("latin-1", "replace") for text in (tags.title, tags.artist, "", "", tags.comment))
        file.write(VERSION_1.pack(b"TAG", *texts, NO_GENRE))


def _encode_texts(*texts: str) -> tuple[bytes, bytes]:
    """Returns the encoding byte and the texts, separated by terminators."""
    try:
        return LATIN_1, b"\0".join(text.encode("latin-1") for text in texts)
    except UnicodeEncodeError:
        return UTF_16, b"\0\0".join(text.encode("utf-16") for text in texts)  # Each with a byte order mark.


def _encode_frame(name: bytes, encoding: bytes, text: bytes, before_text: bytes = b"") -> bytes:
    content = encoding + before_text + text
    return FRAME.pack(name, len(content), 0) + content
