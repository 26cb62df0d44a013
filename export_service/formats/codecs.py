"""The file formats that can be written, in libsndfile's terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from service_runtime.audio.output_options import FileFormat


@dataclass(frozen=True)
class CodecSpec:
    """How a format is encoded."""

    container: str
    subtype: str
    extension: str
    bits: int = 0
    """Bits of an integer sample; 0 if samples are passed to the encoder as float32."""
    is_lossy: bool = False
    """Decoding does not return the exact samples that were encoded."""
    encoder_options: Mapping[str, float] = field(default_factory=dict)
    """Keyword arguments for soundfile.SoundFile."""


CODECS = {
    FileFormat.WAV_PCM_24: CodecSpec("WAV", "PCM_24", ".wav", bits=24),
    FileFormat.WAV_PCM_16: CodecSpec("WAV", "PCM_16", ".wav", bits=16),
    FileFormat.WAV_FLOAT: CodecSpec("WAV", "FLOAT", ".wav"),
    FileFormat.FLAC_24: CodecSpec("FLAC", "PCM_24", ".flac", bits=24),
    FileFormat.FLAC_16: CodecSpec("FLAC", "PCM_16", ".flac", bits=16),
    # In libsndfile, 0 is the best quality. These are LAME's V0, Vorbis' q8, and 256 kbit/s for stereo Opus.
    FileFormat.MP3: CodecSpec(
        "MP3", "MPEG_LAYER_III", ".mp3", is_lossy=True, encoder_options={"compression_level": 0.0}
    ),
    FileFormat.OGG_VORBIS: CodecSpec(
        "OGG", "VORBIS", ".ogg", is_lossy=True, encoder_options={"compression_level": 0.2}
    ),
    FileFormat.OGG_OPUS: CodecSpec("OGG", "OPUS", ".opus", is_lossy=True, encoder_options={"compression_level": 0.5}),
}

EXTENSIONS = tuple(dict.fromkeys(codec.extension for codec in CODECS.values()))
"""Every extension that a file of the library can have."""
