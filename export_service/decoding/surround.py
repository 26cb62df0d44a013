"""Mixes surround sound down to stereo (ITU-R BS.775-4, annex 4)."""

from __future__ import annotations

import math

import numpy as np

from export_service.dsp.arrays import Samples

ChannelLayout = tuple[str, ...]
"""The loudspeaker of each channel: FL, FR, FC (front), LFE, SL, SR (side), BL, BR, BC (back)."""

MINUS_3_DB = math.sqrt(0.5)
DOWNMIX_GAINS = {
    "FL": (1.0, 0.0),
    "FR": (0.0, 1.0),
    "FC": (MINUS_3_DB, MINUS_3_DB),
    "LFE": (0.0, 0.0),
    "SL": (MINUS_3_DB, 0.0),
    "SR": (0.0, MINUS_3_DB),
    "BL": (MINUS_3_DB, 0.0),
    "BR": (0.0, MINUS_3_DB),
    # A single surround channel is that of two loudspeakers, at -3 dB each.
    "BC": (0.5, 0.5),
}
"""Loudspeaker → its gain in the left and in the right channel. The back channels of 7.1 count as surround channels."""

MASK_ORDER = ("FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR")
"""The loudspeakers of the bits of a WAVE_FORMAT_EXTENSIBLE channel mask, from the lowest. Channels have this order."""
FLAC_LAYOUTS: dict[int, ChannelLayout] = {
    3: ("FL", "FR", "FC"),
    4: ("FL", "FR", "BL", "BR"),
    5: ("FL", "FR", "FC", "BL", "BR"),
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    7: ("FL", "FR", "FC", "LFE", "BC", "SL", "SR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}
"""Number of channels → their order in FLAC (RFC 9639, section 9.1.3)."""
VORBIS_LAYOUTS: dict[int, ChannelLayout] = {
    3: ("FL", "FC", "FR"),
    4: ("FL", "FR", "BL", "BR"),
    5: ("FL", "FC", "FR", "BL", "BR"),
    6: ("FL", "FC", "FR", "BL", "BR", "LFE"),
    7: ("FL", "FC", "FR", "SL", "SR", "BC", "LFE"),
    8: ("FL", "FC", "FR", "SL", "SR", "BL", "BR", "LFE"),
}
"""Number of channels → their order in Vorbis (specification, section 4.3.9) and Opus (RFC 7845, section 5.1.1.2)."""


def channel_mask_layout(mask: int, channels: int) -> ChannelLayout | None:
    """Returns the layout of a channel mask; None if it does not name a loudspeaker for each channel."""
    layout = tuple(name for bit, name in enumerate(MASK_ORDER) if mask >> bit & 1)
    is_complete = len(layout) == channels and mask < 1 << len(MASK_ORDER)
    return layout if is_complete else None


def can_mix_down(layout: ChannelLayout | None) -> bool:
    """Returns whether it is a layout around a left and a right front loudspeaker, of those known here, once each."""
    return layout is not None and {"FL", "FR"} <= set(layout) <= set(DOWNMIX_GAINS) and len(set(layout)) == len(layout)


def mix_down(samples: Samples, layout: ChannelLayout) -> Samples:
    """Returns [frames, 2] from [frames, channels]. The level is not changed, so the result can exceed full scale."""
    gains = np.array([DOWNMIX_GAINS[name] for name in layout], dtype=np.float32)
    return samples @ gains
