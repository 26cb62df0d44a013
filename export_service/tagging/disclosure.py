"""Where a file discloses that it is AI-generated: always in its tags, and by a C2PA signature if one is configured."""

from __future__ import annotations

from enum import Enum


class AiDisclosure(Enum):
    """A place in a file that discloses that it is AI-generated."""

    INFO = "info"
    BEXT = "bext"
    ID3 = "id3"
    VORBIS_COMMENT = "vorbis_comment"
    ANNOTATION = "annotation"
    MP4 = "mp4"
    C2PA = "c2pa"
    C2PA_SIDECAR = "c2pa_sidecar"
