"""RIFF chunks, and the metadata chunks of WAV files: LIST/INFO, `bext` for broadcasting, `acid` for DAWs."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from export_service.dsp.measurement import LoudnessMeasurement
from export_service.tagging.musical_key import tonic_pitch_class
from export_service.tagging.tags import FileTags

CHUNK_HEADER = struct.Struct("<4sI")
"""Name and size."""
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
UNKNOWN_LOUDNESS = 0x7FFF
"""Marks a loudness figure that is not known."""

ACID = struct.Struct("<IHHfIHHf")
"""Flags, root note, 0x8000, 0.0, beats, denominator, numerator, tempo. There is no published specification; this is
how libsndfile reads it."""
ROOT_NOTE_SET, DISK_BASED = 0x02, 0x08
"""Flags. Audio that is too long to be a loop is disk-based."""
LOWEST_ROOT_NOTE = 48
"""The MIDI note of C3; B3 is 59."""
NO_ROOT_NOTE = 60
BEATS_PER_BAR, BEAT_UNIT = 4, 4
"""The metre is assumed, not measured."""


def iter_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yields name, offset of the content and size in bytes of each chunk of a WAV or RF64 file, up to the samples."""
    position = 12
    while True:
        file.seek(position)
        header = file.read(CHUNK_HEADER.size)
        if len(header) < CHUNK_HEADER.size:
            return
        name, size = CHUNK_HEADER.unpack(header)
        yield name, position + CHUNK_HEADER.size, size
        if name == b"data":
            return
        position += CHUNK_HEADER.size + size + size % 2


def replace_list_chunk(path: Path, replacement: bytes) -> None:
    """Overwrites the LIST chunk with complete chunks; it must be longer by at least a chunk header. Raises OSError."""
    with path.open("r+b") as file:
        start, size = next((start, size) for name, start, size in iter_chunks(file) if name == b"LIST")
        space = CHUNK_HEADER.size + size - len(replacement)
        file.seek(start - CHUNK_HEADER.size)
        file.write(replacement + encode_chunk(b"JUNK", bytes(space - CHUNK_HEADER.size)))


def encode_chunk(name: bytes, content: bytes) -> bytes:
    """Returns the chunk with its header, padded to an even length."""
    return CHUNK_HEADER.pack(name, len(content)) + content + bytes(len(content) % 2)


def encode_info(tags: FileTags) -> bytes:
    """Returns a LIST chunk of type INFO, in UTF-8; unknown values are left out."""
    values = ((name, getattr(tags, attribute)) for name, attribute in INFO_NAMES.items())
    texts = (encode_chunk(name.encode(), text.encode() + b"\0") for name, text in values if text)
    return encode_chunk(b"LIST", b"INFO" + b"".join(texts))


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
        tags.description.encode("ascii", "replace")[:256],
        ORIGINATOR,
        tags.generation_id.replace("-", "").encode(),  # The 32 digits of a UUID fill the field exactly.
        b"",
        b"",
        0,
        BEXT_VERSION,
        b"",
        *map(_to_hundredths, figures),
    )
    history = coding_history.encode("ascii")
    # An even length, because libsndfile 1.2.2 fails to parse what follows an odd one in RF64.
    return encode_chunk(b"bext", fixed + history + bytes(len(history) % 2))


def encode_acid(tags: FileTags, seconds: float) -> bytes:
    """Returns the chunk with tempo, beats, metre and root note; empty if the tempo is not known."""
    if not tags.bpm:
        return b""
    root = tonic_pitch_class(tags.key)
    return encode_chunk(
        b"acid",
        ACID.pack(
            DISK_BASED | (0 if root is None else ROOT_NOTE_SET),
            NO_ROOT_NOTE if root is None else LOWEST_ROOT_NOTE + root,
            0x8000,
            0.0,
            max(round(seconds * tags.bpm / 60), 1),
            BEAT_UNIT,
            BEATS_PER_BAR,
            tags.bpm,
        ),
    )


def _to_hundredths(figure: float | None) -> int:
    """Returns the figure as `bext` stores it; one that does not fit becomes unknown."""
    hundredths = UNKNOWN_LOUDNESS if figure is None else round(figure * 100)
    return hundredths if abs(hundredths) < UNKNOWN_LOUDNESS else UNKNOWN_LOUDNESS
