"""ID3 tags of MP3 files: version 2.3, which everything reads, and version 1.

LAME, as libsndfile drives it, writes UTF-8 that it says is Latin-1, and neither tempo nor key.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from export_service.formats.musical_key import short_key
from export_service.formats.tags import FileTags

HEADER = struct.Struct(">3sHB4s")
"""Identifier, version, flags, and the size of all frames in four times seven bits."""
FRAME = struct.Struct(">4sIH")
"""Name, size of the content, flags."""
LATIN_1, UTF_16 = b"\0", b"\1"
LANGUAGE = b"eng"
VERSION_1 = struct.Struct("<3s30s30s30s4s30sB")
"""Identifier, title, artist, album, year, comment, genre."""
NO_GENRE = 255


def frames(tags: FileTags) -> bytes:
    """All frames; what is not known is left out."""
    texts = {
        b"TIT2": tags.title,
        b"TPE1": tags.artist,
        b"TCON": tags.genre,
        b"TCOP": tags.license,
        b"TSSE": tags.generator,
        b"TBPM": f"{tags.bpm:.0f}" if tags.bpm else "",  # A whole number, says the standard.
        b"TKEY": short_key(tags.key),
    }
    comment = _frame(b"COMM", *_encoded("", tags.comment), before_text=LANGUAGE)
    return b"".join(_frame(name, *_encoded(text)) for name, text in texts.items() if text) + comment


def replace(path: Path, content: bytes, tags: FileTags) -> None:
    """Puts the frames in the place of the file's, which are longer, and the same words into its version 1 tag.

    Raises OSError.
    """
    with path.open("r+b") as file:
        _, _, _, size = HEADER.unpack(file.read(HEADER.size))
        room = sum(part << shift for part, shift in zip(size, (21, 14, 7, 0), strict=True))
        file.write(content.ljust(room, b"\0"))
        file.seek(-VERSION_1.size, os.SEEK_END)
        words = (text.encode("latin-1", "replace") for text in (tags.title, tags.artist, "", "", tags.comment))
        file.write(VERSION_1.pack(b"TAG", *words, NO_GENRE))


def _encoded(*texts: str) -> tuple[bytes, bytes]:
    """The encoding's sign, and the texts with zeros between them."""
    try:
        return LATIN_1, b"\0".join(text.encode("latin-1") for text in texts)
    except UnicodeEncodeError:
        return UTF_16, b"\0\0".join(text.encode("utf-16") for text in texts)  # Each with a byte order mark.


def _frame(name: bytes, encoding: bytes, text: bytes, before_text: bytes = b"") -> bytes:
    content = encoding + before_text + text
    return FRAME.pack(name, len(content), 0) + content
