"""The pads: sustained sounds, which are arranged differently from the others and synthesised from their spectrum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class PadVoice:
    """The parameters of a spectral pad, see `tone_synthesis.render_pad`. Attack and release are in seconds."""

    tilt: float
    brightness_hz: float
    width_cents: float
    attack: float
    release: float


PADS: Final[dict[str, PadVoice]] = {
    "pad": PadVoice(1.1, 1500.0, 26.0, 0.5, 0.9),
    "warm pad": PadVoice(1.4, 900.0, 34.0, 1.6, 2.6),
    "strings": PadVoice(0.9, 2600.0, 18.0, 0.16, 0.45),
    "choir": PadVoice(1.0, 1100.0, 40.0, 0.6, 1.2),
}
