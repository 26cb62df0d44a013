"""Chunks of WAV and RF64 files for DAWs and samplers: `acid` with tempo and key, and the sections of the music: `cue `
with LIST/adtl, `smpl` with loops, and `iXML`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from export_service.tagging.musical_key import tonic_pitch_class
from export_service.tagging.sections import Section, is_loop
from export_service.tagging.tags import FileTags

ACID = struct.Struct("<IHHfIHHf")
"""Flags, root note, 0x8000, 0.0, beats, denominator, numerator, tempo. There is no published specification; this is
how libsndfile reads it."""
ROOT_NOTE_SET, STRETCHED, DISK_BASED = 0x02, 0x04, 0x08
"""Flags. Audio that is no loop is disk-based; a loop follows the tempo of the project."""
BEATS_PER_BAR, BEAT_UNIT = 4, 4
"""The metre is assumed, not measured."""

COUNT = struct.Struct("<I")
CUE_POINT = struct.Struct("<II4sIII")
"""Id, position, chunk, chunk start, block start, and the frame in the chunk."""
LABEL = struct.Struct("<I")
"""The id of a cue point; a text follows."""
REGION = struct.Struct("<II4s4H")
"""The id of a cue point, length in frames, purpose, country, language, dialect, code page."""
SAMPLER = struct.Struct("<9I")
"""Manufacturer, product, nanoseconds of a frame, root note, its fraction, SMPTE format and offset, number of loops, and
the size of what follows them."""
LOOP = struct.Struct("<6I")
"""The id of a cue point, type (0: forwards), first and last frame, fraction, how often (0: for ever)."""
LOWEST_ROOT_NOTE, MIDDLE_C = 48, 60
MAX_LOOPS = 16
"""As many as libsndfile and samplers read."""
SYNC_POINT = (
    "<SYNC_POINT><SYNC_POINT_TYPE>RELATIVE</SYNC_POINT_TYPE><SYNC_POINT_FUNCTION>MARKER_GENERIC</SYNC_POINT_FUNCTION>"
    "<SYNC_POINT_COMMENT>{comment}</SYNC_POINT_COMMENT><SYNC_POINT_LOW>{low}</SYNC_POINT_LOW>"
    "<SYNC_POINT_HIGH>{high}</SYNC_POINT_HIGH><SYNC_POINT_EVENT_DURATION>{frames}</SYNC_POINT_EVENT_DURATION>"
    "</SYNC_POINT>"
)


def root_note(key: str) -> int:
    """Returns the MIDI note of the tonic, from C3 (48) to B3 (59); middle C if the key is not known."""
    tonic = tonic_pitch_class(key)
    return MIDDLE_C if tonic is None else LOWEST_ROOT_NOTE + tonic


def encode_acid(tags: FileTags, seconds: float) -> bytes:
    """Returns the content of the `acid` chunk: tempo, beats, metre and root note. The tempo must be known."""
    has_root = tonic_pitch_class(tags.key) is not None
    return ACID.pack(
        (STRETCHED if is_loop(tags.sections) else DISK_BASED) | (ROOT_NOTE_SET if has_root else 0),
        root_note(tags.key),
        0x8000,
        0.0,
        max(round(seconds * tags.bpm / 60), 1),
        BEAT_UNIT,
        BEATS_PER_BAR,
        tags.bpm,
    )


def encode_cue(sections: Sequence[Section]) -> bytes:
    """Returns the content of the `cue ` chunk: a cue point at the start of each section, numbered from 1."""
    points = (
        CUE_POINT.pack(number, section.start_frame, b"data", 0, 0, section.start_frame)
        for number, section in enumerate(sections, 1)
    )
    return COUNT.pack(len(sections)) + b"".join(points)


def encode_labels(sections: Sequence[Section]) -> dict[bytes, list[bytes]]:
    """Returns the contents of the chunks in LIST/adtl, by name: the sections' names in UTF-8, and their lengths."""
    return {
        b"labl": [LABEL.pack(number) + section.name.encode() + b"\0" for number, section in enumerate(sections, 1)],
        b"ltxt": [
            REGION.pack(number, section.end_frame - section.start_frame, b"rgn ", 0, 0, 0, 0)
            for number, section in enumerate(sections, 1)
        ],
    }


def decode_sections(cue: bytes, labels: Mapping[bytes, Sequence[bytes]]) -> tuple[Section, ...]:
    """Returns the sections whose chunks the functions above returned."""
    (count,) = COUNT.unpack_from(cue)
    names = {LABEL.unpack_from(label)[0]: label[LABEL.size :].rstrip(b"\0").decode() for label in labels[b"labl"]}
    lengths = dict(REGION.unpack_from(region)[:2] for region in labels[b"ltxt"])
    points = (CUE_POINT.unpack_from(cue, COUNT.size + CUE_POINT.size * index) for index in range(count))
    return tuple(Section(names[number], start, start + lengths[number]) for number, start, *_ in points)


def encode_sampler(sections: Sequence[Section], key: str, sample_rate_hz: int) -> bytes:
    """Returns the content of the `smpl` chunk: a loop over each section. The longest is first, because simple samplers
    know only one.
    """
    numbered = sorted(enumerate(sections, 1), key=lambda item: item[1].start_frame - item[1].end_frame)[:MAX_LOOPS]
    header = SAMPLER.pack(0, 0, round(1e9 / sample_rate_hz), root_note(key), 0, 0, 0, len(numbered), 0)
    return header + b"".join(
        LOOP.pack(number, 0, section.start_frame, section.end_frame - 1, 0, 0) for number, section in numbered
    )


def encode_ixml(tags: FileTags) -> bytes:
    """Returns the content of the `iXML` chunk (iXML specification): a sync point at the start of each section."""
    points = "".join(
        SYNC_POINT.format(
            comment=escape(section.name),
            low=section.start_frame & 0xFFFF_FFFF,
            high=section.start_frame >> 32,
            frames=section.end_frame - section.start_frame,
        )
        for section in tags.sections
    )
    document = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<BWFXML><IXML_VERSION>1.61</IXML_VERSION>'
        f"<PROJECT>{escape(tags.album or tags.title)}</PROJECT><NOTE>{escape(tags.comment)}</NOTE>"
        f"<FILE_UID>{escape(tags.generation_id)}</FILE_UID>"
        f"<SYNC_POINT_LIST><SYNC_POINT_COUNT>{len(tags.sections)}</SYNC_POINT_COUNT>{points}</SYNC_POINT_LIST></BWFXML>"
    ).encode()
    return document + b"\n" * (len(document) % 2)
