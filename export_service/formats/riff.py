"""RIFF chunks, and those of them that say what a WAV file is: LIST/INFO, `bext` for broadcast, `acid` for DAWs."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from export_service.dsp.measurement import Measured
from export_service.formats.musical_key import pitch_class
from export_service.formats.tags import FileTags

HEAD = struct.Struct("<4sI")
"""A chunk's name and size."""
INFO_NAMES = {
    "INAM": "title",
    "IART": "artist",
    "ICMT": "comment",
    "ISFT": "generator",
    "IGNR": "genre",
    "ICOP": "license",
}

BEXT = struct.Struct("<256s32s32s10s8sQH64s5h180x")
"""EBU Tech 3285 version 2, up to the coding history."""
BEXT_VERSION = 2
ORIGINATOR = b"DGX Music"
UNKNOWN_FIGURE = 0x7FFF
"""What stands for a loudness figure that there is none of."""

ACID = struct.Struct("<IHHfIHHf")
"""Flags, root note, 0x8000, 0.0, beats, denominator, numerator, tempo. Nobody published it; libsndfile reads it so."""
ROOT_NOTE_SET, DISK_BASED = 0x02, 0x08
"""Flags. Disk-based is what is too long to be a loop."""
LOWEST_ROOT_NOTE = 48
"""MIDI's C3; B3 is 59."""
NO_ROOT_NOTE = 60
BEATS_A_BAR, BEAT_UNIT = 4, 4
"""The metre that is taken for granted: nobody measures it."""


def chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Name, content's offset and content's size in bytes of each chunk, up to the samples, of a WAV or RF64 file."""
    position = 12
    while True:
        file.seek(position)
        head = file.read(HEAD.size)
        if len(head) < HEAD.size:
            return
        name, size = HEAD.unpack(head)
        yield name, position + HEAD.size, size
        if name == b"data":
            return
        position += HEAD.size + size + size % 2


def replace_info(path: Path, content: bytes) -> None:
    """Puts whole chunks in the place of the LIST chunk, which is longer by at least a chunk's head. Raises OSError."""
    with path.open("r+b") as file:
        start, size = next((start, size) for name, start, size in chunks(file) if name == b"LIST")
        room = HEAD.size + size - len(content)
        file.seek(start - HEAD.size)
        file.write(content + chunk(b"JUNK", bytes(room - HEAD.size)))


def chunk(name: bytes, content: bytes) -> bytes:
    """The chunk with its head, padded to an even length."""
    return HEAD.pack(name, len(content)) + content + bytes(len(content) % 2)


def info(tags: FileTags) -> bytes:
    """A LIST chunk of type INFO, in UTF-8; what is not known is left out."""
    found = ((name, getattr(tags, attribute)) for name, attribute in INFO_NAMES.items())
    texts = (chunk(name.encode(), text.encode() + b"\0") for name, text in found if text)
    return chunk(b"LIST", b"INFO" + b"".join(texts))


def bext(tags: FileTags, measured: Measured | None, coding_history: str) -> bytes:
    """The broadcast extension (EBU Tech 3285 version 2) with the figures of the file.

    Date and time are left empty, so that the same generation gives the same file on any day.
    """
    figures: tuple[float | None, ...] = (None,) * 5
    if measured is not None:
        loudness = measured.loudness
        figures = (
            loudness.integrated_lufs,
            loudness.range_lu,
            measured.true_peak_dbtp,
            loudness.max_momentary_lufs,
            loudness.max_short_term_lufs,
        )
    fixed = BEXT.pack(
        tags.description.encode("ascii", "replace")[:256],
        ORIGINATOR,
        tags.generation_id.replace("-", "").encode(),  # A UUID's 32 digits, as long as the field is.
        b"",
        b"",
        0,
        BEXT_VERSION,
        b"",
        *map(_hundredths, figures),
    )
    history = coding_history.encode("ascii")
    # Of even length: libsndfile 1.2.2 loses its way after an odd one in RF64.
    return chunk(b"bext", fixed + history + bytes(len(history) % 2))


def acid(tags: FileTags, seconds: float) -> bytes:
    """Tempo, beats, metre and root note; nothing at all without a tempo."""
    if not tags.bpm:
        return b""
    root = pitch_class(tags.key)
    return chunk(
        b"acid",
        ACID.pack(
            DISK_BASED | (0 if root is None else ROOT_NOTE_SET),
            NO_ROOT_NOTE if root is None else LOWEST_ROOT_NOTE + root,
            0x8000,
            0.0,
            max(round(seconds * tags.bpm / 60), 1),
            BEAT_UNIT,
            BEATS_A_BAR,
            tags.bpm,
        ),
    )


def _hundredths(figure: float | None) -> int:
    """As `bext` has it; what does not fit is not known."""
    hundredths = UNKNOWN_FIGURE if figure is None else round(figure * 100)
    return hundredths if abs(hundredths) < UNKNOWN_FIGURE else UNKNOWN_FIGURE
