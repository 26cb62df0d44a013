"""Puts tags into the file of each container, and reads them back."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from pathlib import Path

from dgx_music.errors import InvalidArgument
from export_service.dsp.measurement import LoudnessMeasurement
from export_service.tagging import aiff, caf, id3, markers, mp4, ogg, riff, vorbis_comment
from export_service.tagging.cover import Cover
from export_service.tagging.disclosure import AiDisclosure
from export_service.tagging.sections import Section
from export_service.tagging.tags import FileTags

DISCLOSURES = {
    "WAV": (AiDisclosure.INFO, AiDisclosure.BEXT, AiDisclosure.ID3),
    "AIFF": (AiDisclosure.ANNOTATION, AiDisclosure.ID3),
    "CAF": (AiDisclosure.INFO,),
    "W64": (AiDisclosure.INFO,),
    "FLAC": (AiDisclosure.VORBIS_COMMENT,),
    "OGG": (AiDisclosure.VORBIS_COMMENT,),
    "MP3": (AiDisclosure.ID3,),
    "M4A": (AiDisclosure.MP4,),
}
"""Where the tags of each container disclose that a file is AI-generated."""
WITHOUT_COVER = frozenset({"CAF", "W64"})
"""Containers that have no place for a picture."""
MAGIC_BYTES = 12
DAMAGED = (struct.error, ValueError, LookupError, StopIteration, InvalidArgument)
"""What the readers raise for tags that are not as they were written."""
CHANNEL_MODES = {1: "mono", 2: "stereo"}


@dataclass(frozen=True)
class SampleLayout:
    """The samples of a file, as far as its tags describe them."""

    sample_rate_hz: int
    channels: int
    bits: int
    """Bits of a sample, also of a float."""
    frames: int


def encode_tags(container: str, tags: FileTags, layout: SampleLayout, measurement: LoudnessMeasurement | None) -> bytes:
    """Returns all tags, encoded for the container. `measurement` is that of the file; only WAV files contain it."""
    rate = layout.sample_rate_hz
    match container:
        case "WAV":
            width = f"W={layout.bits},M={CHANNEL_MODES[layout.channels]}"
            history = f"A=PCM,F={rate},{width},T={tags.generator}\r\n"
            return riff.encode_all(tags, measurement, history, rate, layout.frames)
        case "AIFF":
            return aiff.encode_all(tags, rate)
        case "CAF":
            return caf.encode_info(tags)
        case "W64":
            return riff.encode_summary_list(tags)
        case "MP3":
            return id3.encode_tag(tags, rate)
        case "M4A":
            return mp4.encode_user_data(tags, rate)
        case "FLAC":
            picture = vorbis_comment.encode_picture(tags.cover) if tags.cover else b""
            return vorbis_comment.encode_comments(tags, rate) + picture
    return vorbis_comment.encode_comments(tags, rate)


def overwrite_tags(part: Path, container: str, tags: FileTags | None, tag_bytes: bytes, serial: int) -> None:
    """Writes encoded tags over the placeholder in the file, or appends them. Raises OSError.

    Without tags, only sets the serial number of an Ogg stream, which libsndfile picks at random.
    """
    if container == "OGG":
        ogg.rewrite_stream(part, serial, tag_bytes)
    if tags is None:
        return
    match container:
        case "WAV":
            riff.write_chunks(part, tag_bytes)
        case "AIFF":
            aiff.append_chunks(part, tag_bytes)
        case "CAF":
            caf.append_chunks(part, tag_bytes)
        case "W64":
            riff.append_guid_chunk(part, tag_bytes)
        case "FLAC":
            picture = vorbis_comment.encode_picture(tags.cover) if tags.cover else b""
            vorbis_comment.replace_flac_comments(part, tag_bytes.removesuffix(picture), tags.cover)
        case "MP3":
            id3.replace_tags(part, tag_bytes, tags)
        case "M4A":
            mp4.replace_user_data(part, tag_bytes)


def read_comment(path: Path) -> str:
    """Returns the comment of a file in any container; empty if it has none or is damaged. Raises OSError."""
    import soundfile

    try:
        match _detect_container(path):
            case "AIFF":
                return aiff.read_tag_chunks(path).get(b"ANNO", b"").decode(errors="replace")
            case "CAF":
                return caf.read_info(path).get("comments", "")
            case "W64":
                return riff.read_summary_list(path).get(b"ICMT", "")
            case "M4A":
                return mp4.read_items(path).get(b"\xa9cmt", b"").decode(errors="replace")
        with soundfile.SoundFile(path) as file:
            comment: str = file.comment
            return comment
    except (soundfile.LibsndfileError, *DAMAGED):
        return ""


def read_tags(path: Path, generation_id: str) -> FileTags:
    """Restores the tags of a file in any container, as far as it contains them. Raises OSError.

    Sections are exact in WAV files; elsewhere they are to the nearest millisecond.
    """
    tags = FileTags.parse_comment(read_comment(path), generation_id)
    try:
        cover, sections = _read_cover_and_sections(path)
    except DAMAGED:
        return tags
    return replace(tags, cover=cover, sections=sections)


def _read_cover_and_sections(path: Path) -> tuple[Cover | None, tuple[Section, ...]]:
    import soundfile

    match container := _detect_container(path):
        case "WAV":
            chunks = riff.read_tag_chunks(path)
            cover = id3.read_cover(chunks[b"id3 "][0]) if b"id3 " in chunks else None
            return cover, markers.decode_sections(chunks[b"cue "][0], chunks) if b"cue " in chunks else ()
        case "AIFF":
            tag, rate = aiff.read_tag_chunks(path)[b"ID3 "], soundfile.info(path).samplerate
            return id3.read_cover(tag), id3.read_sections(tag, rate)
        case "M4A":
            return mp4.read_cover(mp4.read_items(path)), mp4.read_sections(path)
        case "MP3":
            tag, rate = id3.read_tag(path), soundfile.info(path).samplerate
            return id3.read_cover(tag), id3.read_sections(tag, rate)
        case "FLAC" | "OGG":
            if container == "FLAC":
                comments, cover = vorbis_comment.read_flac_tags(path)
            else:
                comments = ogg.read_comments(path)
                cover = vorbis_comment.find_picture(comments)
            info = soundfile.info(path)
            return cover, vorbis_comment.decode_sections(comments, info.samplerate, info.frames)
    return None, ()


def _detect_container(path: Path) -> str:
    """Returns the name of the container by how the file starts; MP3 if by nothing else."""
    with path.open("rb") as file:
        magic = file.read(MAGIC_BYTES)
        # The Content Credentials of a FLAC file are in an ID3 tag in front of it.
        file.seek(id3.find_end(file))
        if file.read(len(vorbis_comment.FLAC_MAGIC)) == vorbis_comment.FLAC_MAGIC:
            return "FLAC"
    match magic[:4]:
        case b"RIFF" | b"RF64":
            return "WAV"
        case b"FORM":
            return "AIFF"
        case b"caff":
            return "CAF"
        case b"riff":
            return "W64"
        case b"OggS":
            return "OGG"
    return "M4A" if magic[4:8] == b"ftyp" else "MP3"
