"""Puts tags into the file of each container, in the space that libsndfile reserved for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from export_service.dsp.measurement import LoudnessMeasurement
from export_service.tagging import id3, ogg, riff, vorbis_comment
from export_service.tagging.disclosure import AiDisclosure
from export_service.tagging.tags import FileTags

DISCLOSURES = {
    "WAV": (AiDisclosure.INFO, AiDisclosure.BEXT),
    "FLAC": (AiDisclosure.VORBIS_COMMENT,),
    "OGG": (AiDisclosure.VORBIS_COMMENT,),
    "MP3": (AiDisclosure.ID3,),
}
"""Where the tags of each container disclose that a file is AI-generated."""
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
    match container:
        case "WAV":
            width = f"W={layout.bits},M={CHANNEL_MODES[layout.channels]}"
            history = f"A=PCM,F={layout.sample_rate_hz},{width},T={tags.generator}\r\n"
            bext = riff.encode_bext(tags, measurement, history)
            return bext + riff.encode_acid(tags, layout.frames / layout.sample_rate_hz) + riff.encode_info(tags)
        case "MP3":
            return id3.encode_frames(tags)
    return vorbis_comment.encode_comments(tags)


def overwrite_tags(part: Path, container: str, tags: FileTags | None, tag_bytes: bytes, serial: int) -> None:
    """Writes encoded tags over the placeholder in the file. Raises OSError.

    Without tags, only sets the serial number of an Ogg stream, which libsndfile picks at random.
    """
    match container:
        case "OGG":
            ogg.rewrite_stream(part, serial, tag_bytes)
        case "WAV" if tag_bytes:
            riff.replace_list_chunk(part, tag_bytes)
        case "FLAC" if tag_bytes:
            vorbis_comment.replace_flac_comments(part, tag_bytes)
        case "MP3" if tags is not None:
            id3.replace_tags(part, tag_bytes, tags)
