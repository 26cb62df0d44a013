"""The formats that files are written in, in libsndfile's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from service_runtime.audio.output_options import FileFormat


@dataclass(frozen=True)
class Form:
    """How a format is written."""

    container: str
    subtype: str
    extension: str
    bits: int = 0
    """Of an integer sample; 0 where samples go in as float32."""
    lossy: bool = False
    """What a decoder gives differs from what went in."""
    quality: Mapping[str, float] = field(default_factory=dict)
    """soundfile's settings of the encoder."""


FORMS = {
    FileFormat.WAV_PCM_24: Form("WAV", "PCM_24", ".wav", bits=24),
    FileFormat.WAV_PCM_16: Form("WAV", "PCM_16", ".wav", bits=16),
    FileFormat.WAV_FLOAT: Form("WAV", "FLOAT", ".wav"),
    FileFormat.FLAC_24: Form("FLAC", "PCM_24", ".flac", bits=24),
    FileFormat.FLAC_16: Form("FLAC", "PCM_16", ".flac", bits=16),
    # libsndfile counts quality down from 0, the best: LAME's V0, Vorbis' q8, Opus' 256 kbit/s for stereo.
    FileFormat.MP3: Form("MP3", "MPEG_LAYER_III", ".mp3", lossy=True, quality={"compression_level": 0.0}),
    FileFormat.OGG_VORBIS: Form("OGG", "VORBIS", ".ogg", lossy=True, quality={"compression_level": 0.2}),
    FileFormat.OGG_OPUS: Form("OGG", "OPUS", ".opus", lossy=True, quality={"compression_level": 0.5}),
}

EXTENSIONS = tuple(dict.fromkeys(form.extension for form in FORMS.values()))
"""Every extension that a file of the library may have."""
