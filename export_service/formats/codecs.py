"""The file formats that can be written, and the settings of their encoders."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from dgx_music.limits import MAX_QUALITY
from service_runtime.audio.bit_rates import MPEG_1_MIN_RATE_HZ, MPEG_2_MIN_RATE_HZ, OPUS_KBPS_PER_CHANNEL
from service_runtime.audio.output_options import FileFormat


@dataclass(frozen=True)
class CodecSpec:
    """How a format is encoded."""

    container: str
    """libsndfile's name, or "M4A"."""
    subtype: str
    """libsndfile's name, or "AAC"."""
    extension: str
    bits: int = 0
    """Bits of an integer sample; 0 if samples are passed to the encoder as float32."""
    is_lossy: bool = False
    """Decoding does not return the exact samples that were encoded."""
    default_quality: float = MAX_QUALITY
    """Of a lossy format that has one: 0 to 10."""

    @property
    def is_float(self) -> bool:
        """Whether it stores floats, which may exceed full scale."""
        return not (self.bits or self.is_lossy)


def _pcm_codecs(container: str, extension: str, float_extension: str = "") -> dict[FileFormat, CodecSpec]:
    codecs = {
        FileFormat[f"{container}_PCM_{bits}"]: CodecSpec(container, f"PCM_{bits}", extension, bits=bits)
        for bits in (24, 16, 32)
    }
    return {**codecs, FileFormat[f"{container}_FLOAT"]: CodecSpec(container, "FLOAT", float_extension or extension)}


CODECS = {
    **_pcm_codecs("WAV", ".wav"),
    FileFormat.FLAC_24: CodecSpec("FLAC", "PCM_24", ".flac", bits=24),
    FileFormat.FLAC_16: CodecSpec("FLAC", "PCM_16", ".flac", bits=16),
    # LAME's V0, Vorbis' q8, and 256 kbit/s for stereo Opus.
    FileFormat.MP3: CodecSpec("MP3", "MPEG_LAYER_III", ".mp3", is_lossy=True),
    FileFormat.OGG_VORBIS: CodecSpec("OGG", "VORBIS", ".ogg", is_lossy=True, default_quality=8.0),
    FileFormat.OGG_OPUS: CodecSpec("OGG", "OPUS", ".opus", is_lossy=True, default_quality=5.0),
    **_pcm_codecs("AIFF", ".aiff", ".aifc"),  # Floats need AIFF-C.
    **_pcm_codecs("CAF", ".caf"),
    **_pcm_codecs("W64", ".w64"),
    FileFormat.M4A_AAC: CodecSpec("M4A", "AAC", ".m4a", is_lossy=True),
}

EXTENSIONS = tuple(dict.fromkeys(codec.extension for codec in CODECS.values()))
"""Every extension that a file of the library can have."""

MAX_COMPRESSION_LEVEL = 0.9999
"""LAME reports an error for V10, which it would treat as V9.999."""
MP3_BIT_RATE_RANGES_KBPS = ((MPEG_1_MIN_RATE_HZ, 32, 320), (MPEG_2_MIN_RATE_HZ, 8, 160), (0, 8, 64))
"""The lowest sample rate in Hz, and the bit rates that libsndfile maps the compression levels 1 to 0 to."""
MIN_MP3_FRAME_BITS = 8 * (36 + 156)
"""LAME writes the length of the file and the encoder's delay only if its tag, after the side information, fits into a
frame of the constant bit rate. Without them, a decoder returns some thousand frames of silence."""
VORBIS_QUALITIES = np.arange(11.0)
VORBIS_ID = struct.Struct("<xxxxxxxIBIiii")
"""The start of Vorbis' identification header: version, channels, sample rate, maximum, nominal and minimum bit rate."""


def libsndfile_options(
    file_format: FileFormat, sample_rate_hz: int, channels: int, bit_rate_kbps: int = 0, quality: float | None = None
) -> dict[str, Any]:
    """Returns the keyword arguments for soundfile.SoundFile that set the bit rate, or else the quality.

    libsndfile has a single scale for both: a compression level from 0, the best, to 1.
    """
    codec = CODECS[file_format]
    if not codec.is_lossy:
        return {}
    if bit_rate_kbps and file_format is FileFormat.MP3:
        lowest, highest = next(
            limits for at_least_hz, *limits in MP3_BIT_RATE_RANGES_KBPS if sample_rate_hz >= at_least_hz
        )
        # libsndfile truncates the bit rate to an integer.
        level = (highest - bit_rate_kbps - 0.5) / (highest - lowest)
        frame_bits = bit_rate_kbps * 1000 * (1152 if sample_rate_hz >= MPEG_1_MIN_RATE_HZ else 576) // sample_rate_hz
        mode = "CONSTANT" if frame_bits >= MIN_MP3_FRAME_BITS else "AVERAGE"
        return {"compression_level": max(level, 0.0), "bitrate_mode": mode}
    if bit_rate_kbps and file_format is FileFormat.OGG_OPUS:
        lowest, highest = OPUS_KBPS_PER_CHANNEL  # libsndfile maps the levels to the same range.
        return {"compression_level": (highest - bit_rate_kbps / channels) / (highest - lowest)}
    if bit_rate_kbps:
        quality = float(np.interp(bit_rate_kbps, _vorbis_bit_rates_kbps(sample_rate_hz, channels), VORBIS_QUALITIES))
    level = 1.0 - (codec.default_quality if quality is None else quality) / MAX_QUALITY
    return {"compression_level": min(level, MAX_COMPRESSION_LEVEL)}


@cache
def _vorbis_bit_rates_kbps(sample_rate_hz: int, channels: int) -> list[float]:
    """Returns the nominal bit rates of the qualities 0, 1 … 10, from the headers of files. Between them, libvorbis
    interpolates linearly.
    """
    import soundfile

    nominal = []
    for quality in VORBIS_QUALITIES:
        file = io.BytesIO()
        with soundfile.SoundFile(
            file, "w", sample_rate_hz, channels, "VORBIS", format="OGG", compression_level=1.0 - quality / MAX_QUALITY
        ) as writer:
            writer.write(np.zeros((1, channels), dtype=np.float32))
        content = file.getvalue()
        _, _, _, _, bits_per_second, _ = VORBIS_ID.unpack_from(content, content.index(b"\x01vorbis"))
        nominal.append(bits_per_second / 1000)
    return nominal
