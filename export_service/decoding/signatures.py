"""Recognizes files by the bytes that they begin with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum, auto

HEAD_BYTES = 4096
"""How much of a file is needed to recognize it."""
TS_PACKET_BYTES = 188


class Container(StrEnum):
    """A container that libsndfile reads."""

    WAV = auto()
    RF64 = auto()
    W64 = auto()
    AIFF = auto()
    CAF = auto()
    AU = auto()
    FLAC = auto()
    MP3 = auto()
    OGG = auto()


@dataclass(frozen=True)
class FileKind:
    """What a file is."""

    name: str
    """With its article, e.g. "an MPEG-4 file"."""
    container: Container | None = None
    """None if libsndfile can't read it."""
    demuxer: str = ""
    """FFmpeg's name of the only demuxer that may open it; empty if none may. Containers of which libsndfile reads some
    encodings have one for the others."""
    encodings: str = ""
    """The short name of the container, if it can contain several encodings."""


WAV = FileKind("a WAV file", Container.WAV, "wav", "WAV")
OGG = FileKind("an Ogg file", Container.OGG, "ogg", "Ogg")
MP3 = FileKind("an MP3 file", Container.MP3)
MPEG_4 = FileKind("an MPEG-4 file (M4A, MP4 or MOV)", None, "mov", "MPEG-4")
AAC = FileKind("an AAC file (ADTS)", None, "aac")
MPEG_TS = FileKind("an MPEG transport stream", None, "mpegts", "MPEG-TS")
TEXT = FileKind("text")
WEB_PAGE = FileKind("a web page or another XML document")
ZEROS = FileKind("a file that begins with zeros")

SIGNATURES: tuple[tuple[bytes, FileKind], ...] = (
    (rb"(RIFF|RIFX)....WAVE", WAV),
    (rb"(RF64|BW64)....WAVE", FileKind("an RF64 file", Container.RF64, "wav", "RF64")),
    (rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1", FileKind("a W64 file", Container.W64, "w64", "W64")),
    (rb"FORM....AIF[FC]", FileKind("an AIFF file", Container.AIFF, "aiff", "AIFF")),
    (rb"caff", FileKind("a CAF file", Container.CAF, "caf", "CAF")),
    (rb"\.snd|dns\.", FileKind("an AU file", Container.AU)),
    (rb"fLaC", FileKind("a FLAC file", Container.FLAC, "flac")),
    (rb"OggS", OGG),
    (rb"\x00...(ftyp|moov|mdat|wide|pnot|free|skip)", MPEG_4),
    (rb"ADIF", AAC),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", FileKind("a Windows Media file (ASF)", None, "asf", "Windows Media")),
    (rb"#!AMR", FileKind("an AMR file", None, "amr")),
    (rb"wvpk", FileKind("a WavPack file", None, "wv")),
    (rb"MAC ", FileKind("a Monkey's Audio file", None, "ape")),
    (rb"TTA[12]", FileKind("a TTA file", None, "tta")),
    (rb"MPCK", FileKind("a Musepack file", None, "mpc8")),
    (rb"MP\+", FileKind("a Musepack file", None, "mpc")),
    (rb"tBaK", FileKind("a TAK file", None, "tak")),
    (rb"DSD ", FileKind("a DSD file (DSF)", None, "dsf")),
    (rb"FRM8", FileKind("a DSD file (DSDIFF)", None, "iff")),
    (rb"\x0b\x77|\x77\x0b", FileKind("an AC-3 file", None, "ac3")),
    (rb"\x7f\xfe\x80\x01|\xfe\x7f\x01\x80", FileKind("a DTS file", None, "dts")),
    (rb"\x1a\x45\xdf\xa3", FileKind("a Matroska or WebM file", None, "matroska", "Matroska")),
    (rb"FLV\x01", FileKind("a Flash video", None, "flv", "FLV")),
    (rb"RIFF....AVI ", FileKind("an AVI file", None, "avi", "AVI")),
    (rb"\x00\x00\x01\xba", FileKind("an MPEG program stream", None, "mpeg", "MPEG")),
    (rb"\.RMF", FileKind("a RealMedia file", None, "rm", "RealMedia")),
    (rb"Creative Voice File", FileKind("a Creative Voice file (VOC)", None, "voc")),
    (rb"FORM....(8SVX|16SV)", FileKind("an Amiga IFF file", None, "iff")),
    (rb"\x64\xa3[\x00-\x04]\x00|\x00[\x00-\x04]\xa3\x64", FileKind("an IRCAM file", None, "ircam")),
    (rb"NIST_1A", FileKind("a NIST SPHERE file", None, "nistsphere")),
    (rb"MThd|RIFF....RMID", FileKind("a MIDI file, which contains notes and no sound")),
    (rb"\xff\xd8\xff", FileKind("a JPEG picture")),
    (rb"\x89PNG", FileKind("a PNG picture")),
    (rb"GIF8", FileKind("a GIF picture")),
    (rb"RIFF....WEBP", FileKind("a WebP picture")),
    (rb"BM....\x00{4}", FileKind("a BMP picture")),
    (rb"II\*\x00|MM\x00\*", FileKind("a TIFF picture")),
    (rb"%PDF", FileKind("a PDF document")),
    (rb"PK(\x03\x04|\x05\x06)", FileKind("a ZIP archive")),
    (rb"\x1f\x8b", FileKind("a gzip archive")),
    (rb"BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd", FileKind("a compressed archive")),
    (rb".{257}ustar", FileKind("a tar archive")),
    (rb"\x7fELF|MZ\x90\x00", FileKind("a program")),
    (rb"SQLite format 3", FileKind("a database")),
    (rb"(?i:#EXTM3U|\[playlist\])", FileKind("a playlist, which contains no sound itself")),
    (rb"(?i:(\xef\xbb\xbf)?\s*<(!doctype|html|\?xml|svg))", WEB_PAGE),
)
"""Regular expression for the first bytes → what the file is."""
PATTERNS = tuple((re.compile(pattern, re.DOTALL), kind) for pattern, kind in SIGNATURES)

BITRATE_FREE, BITRATE_INVALID, RATE_INVALID, VERSION_INVALID = 0, 15, 3, 1


def recognize(head: bytes) -> FileKind | None:
    """Returns what kind of file begins with `head`, its first HEAD_BYTES; None if it is unknown."""
    for pattern, kind in PATTERNS:
        if pattern.match(head):
            return kind
    if head[:2] in (b"\xff\xf0", b"\xff\xf1", b"\xff\xf8", b"\xff\xf9"):
        return AAC
    if is_mpeg_audio_frame(head):
        return MP3
    if len(head) > TS_PACKET_BYTES and head[0] == head[TS_PACKET_BYTES] == 0x47:
        return MPEG_TS
    if not head.strip(b"\0"):
        return ZEROS
    return TEXT if _is_text(head) else None


def is_mpeg_audio_frame(head: bytes) -> bool:
    """Returns whether it begins like a frame of MPEG audio, layer I, II or III (ISO/IEC 11172-3, section 2.4.1.3)."""
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return False
    version, layer, bitrate, rate = head[1] >> 3 & 3, head[1] >> 1 & 3, head[2] >> 4, head[2] >> 2 & 3
    return version != VERSION_INVALID and layer != 0 and bitrate != BITRATE_INVALID and rate != RATE_INVALID


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # Otherwise, the head ends within a character.
            return False
        text = head[: error.start].decode()
    return all(character.isprintable() or character in "\t\r\n\f" for character in text)
