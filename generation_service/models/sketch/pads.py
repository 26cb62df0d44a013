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
    formants: tuple[tuple[float, float, float], ...] = ()
    """Resonances: frequency in Hz, gain in dB, width in octaves."""


PADS: Final[dict[str, PadVoice]] = {
    "pad": PadVoice(1.1, 1500.0, 26.0, 0.5, 0.9),
    "warm pad": PadVoice(1.4, 900.0, 34.0, 1.6, 2.6),
    "strings": PadVoice(0.9, 3200.0, 18.0, 0.14, 0.5, ((480.0, 2.0, 0.4), (2700.0, 4.0, 0.6))),
    # The formants of "ah".
    "choir": PadVoice(1.0, 1900.0, 36.0, 0.5, 1.2, ((700.0, 6.0, 0.35), (1150.0, 4.0, 0.3), (2700.0, 4.0, 0.35))),
}
