"""The bit rates of the lossy encoders in kbit/s, for all channels together, by sample rate and channel count."""

from __future__ import annotations

from collections.abc import Sequence

MPEG_1_BIT_RATES_KBPS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
"""MP3 from 32 kHz (ISO/IEC 11172-3)."""
MPEG_2_BIT_RATES_KBPS = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
"""MP3 from 16 kHz (ISO/IEC 13818-3). Below 16 kHz, as MPEG-2.5, LAME writes them up to 64 kbit/s."""
MPEG_1_MIN_RATE_HZ, MPEG_2_MIN_RATE_HZ = 32_000, 16_000
MPEG_2_5_MAX_KBPS = 64

VORBIS_BIT_RATES_KBPS = (
    (8_999, range(14, 43), range(18, 65)),
    (14_999, range(20, 51), range(26, 89)),
    (18_999, range(24, 101), range(35, 173)),
    (25_999, range(24, 91), range(37, 173)),
    (39_999, range(42, 191), range(56, 381)),
    (50_000, range(48, 241), range(64, 501)),
)
"""The highest sample rate in Hz, and libvorbis's nominal bit rates from quality 0 to 10 for mono and for stereo. It has
none for higher sample rates."""

OPUS_KBPS_PER_CHANNEL = (6, 256)

AAC_MIN_KBPS_PER_CHANNEL, AAC_MAX_KBPS_PER_CHANNEL = 16, 256
AAC_MAX_BITS_PER_SAMPLE = 6
"""Of each channel (ISO/IEC 14496-3: 6144 bits for 1024 samples)."""


def mp3_bit_rates(sample_rate_hz: int, channels: int) -> Sequence[int]:
    """Returns the constant bit rates of MP3; they do not depend on the channels."""
    if sample_rate_hz >= MPEG_1_MIN_RATE_HZ:
        return MPEG_1_BIT_RATES_KBPS
    if sample_rate_hz >= MPEG_2_MIN_RATE_HZ:
        return MPEG_2_BIT_RATES_KBPS
    return [rate for rate in MPEG_2_BIT_RATES_KBPS if rate <= MPEG_2_5_MAX_KBPS]


def vorbis_bit_rates(sample_rate_hz: int, channels: int) -> Sequence[int]:
    """Returns the range of mean bit rates of Vorbis; empty if libvorbis has only qualities for the sample rate."""
    for highest_hz, *ranges in VORBIS_BIT_RATES_KBPS:
        if sample_rate_hz <= highest_hz:
            return ranges[channels - 1]
    return ()


def opus_bit_rates(sample_rate_hz: int, channels: int) -> Sequence[int]:
    """Returns the range of mean bit rates of Opus; they do not depend on the sample rate."""
    lowest, highest = OPUS_KBPS_PER_CHANNEL
    return range(lowest * channels, highest * channels + 1)


def aac_bit_rates(sample_rate_hz: int, channels: int) -> Sequence[int]:
    """Returns the range of mean bit rates of AAC."""
    highest = min(AAC_MAX_KBPS_PER_CHANNEL, AAC_MAX_BITS_PER_SAMPLE * sample_rate_hz // 1000)
    return range(AAC_MIN_KBPS_PER_CHANNEL * channels, highest * channels + 1)
