"""Puts tags into the file of each container, and reads them back."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dgx_music.errors import InvalidArgument
from export_service.dsp.measurement import LoudnessMeasurement
from export_service.tagging import aiff, caf, id3, markers, mp4, ogg, riff, vorbis_comment
from export_service.tagging.cover import Cover
from export_service.tagging.disclosure import AiDisclosure
from export_service.tagging.sections import Section
from export_service.tagging.tags import FileTags, restore_tags

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
MAGIC_BYTES = 12
DAMAGE_ERRORS = (struct.error, ValueError, LookupError, EOFError, StopIteration, InvalidArgument)
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


@dataclass(frozen=True)
class _StoredTags:
    """What is read back from a file."""

    texts: Mapping[str, str]
    """By the names of FileTags."""
    cover: Cover | None = None
    sections: tuple[Section, ...] = ()


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
            caf.insert_chunks(part, tag_bytes)
        case "W64":
            riff.insert_guid_chunk(part, tag_bytes)
        case "FLAC":
            picture = vorbis_comment.encode_picture(tags.cover) if tags.cover else b""
            vorbis_comment.replace_flac_comments(part, tag_bytes.removesuffix(picture), tags.cover)
        case "MP3":
            id3.replace_tags(part, tag_bytes, tags)
        case "M4A":
            mp4.replace_user_data(part, tag_bytes)


def read_comment(path: Path) -> str:
    """Returns the comment of a file in any container; empty if it has none or is damaged. Raises OSError."""
    try:
        return _read(path, with_samples=False).texts.get("comment", "")
    except DAMAGE_ERRORS:
        return ""


def read_tags(path: Path, generation_id: str) -> FileTags:
    """Restores the tags of a file in any container, as far as it contains them. Raises OSError.

    The sections start at the exact frame in WAV and MPEG-4 files, elsewhere at the nearest millisecond.
    """
    try:
        stored = _read(path)
        tags = restore_tags(stored.texts, generation_id)
    except DAMAGE_ERRORS:
        return restore_tags({}, generation_id)
    return replace(tags, cover=stored.cover, sections=stored.sections)


def _read(path: Path, *, with_samples: bool = True) -> _StoredTags:
    """Returns what the file contains. `with_samples`: also what depends on sample rate and length."""
    match _detect_container(path):
        case "WAV":
            chunks = riff.read_tag_chunks(path)
            cover = id3.read_cover(chunks[b"id3 "][0]) if b"id3 " in chunks else None
            sections = markers.decode_sections(chunks[b"cue "][0], chunks) if b"cue " in chunks else ()
            return _StoredTags(riff.decode_info(chunks), cover, sections)
        case "CAF":
            return _StoredTags(caf.read_info(path))
        case "W64":
            return _StoredTags(riff.read_summary_list(path))
        case "M4A":
            texts, cover = mp4.read_items(path)
            return _StoredTags(texts, cover, mp4.read_sections(path))
        case "AIFF" | "MP3" as container:
            tag = aiff.read_tag_chunks(path)[b"ID3 "] if container == "AIFF" else id3.read_tag(path)
            sections = id3.read_sections(tag, _read_rate_and_length(path)[0]) if with_samples else ()
            return _StoredTags(id3.read_texts(tag), id3.read_cover(tag), sections)
        case "FLAC":
            comments, cover = vorbis_comment.read_flac_tags(path)
        case _:
            comments = ogg.read_comments(path)
            cover = vorbis_comment.find_picture(comments)
    sections = vorbis_comment.decode_sections(comments, *_read_rate_and_length(path)) if with_samples else ()
    return _StoredTags({name.lower(): text for name, text in comments.items()}, cover, sections)


def _read_rate_and_length(path: Path) -> tuple[int, int]:
    """Returns the sample rate in Hz and the number of frames. Raises ValueError if the file is damaged."""
    import soundfile

    try:
        info = soundfile.info(path)
    except soundfile.LibsndfileError as error:
        raise ValueError(error.error_string) from error
    return info.samplerate, info.frames


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
