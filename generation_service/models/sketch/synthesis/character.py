"""What a genre's recordings have in common: how hot the desk is driven, and what the tape has lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from generation_service.models.base import FloatArray
from generation_service.models.sketch.synthesis.tone_synthesis import RATE_HZ

_TAPS: Final = 31
_KNEE: Final = 0.5
"""The level in the mixer at which saturation is heard."""


@dataclass(frozen=True, slots=True)
class Character:
    """How a genre treats its stems."""

    drum_drive: float = 0.25
    """How much the drums are saturated: 0 not at all, 1 much."""
    music_drive: float = 0.1
    """How much the other stems are."""
    lowpass_hz: float = 0.0
    """The upper end of what is recorded; 0 for all."""


_DEFAULT: Final = Character()
_CHARACTERS: Final[dict[str, Character]] = {
    "hip hop": Character(0.7, 0.2, 11_000.0),
    "trap": Character(0.5, 0.15),
    "lo-fi": Character(0.6, 0.3, 7000.0),
    "house": Character(0.4, 0.15),
    "techno": Character(0.8, 0.2),
    "trance": Character(0.35, 0.1),
    "drum and bass": Character(0.45, 0.2),
    "dubstep": Character(0.7, 0.25),
    "synthwave": Character(0.4, 0.15, 13_000.0),
    "rock": Character(0.5, 0.15),
    "metal": Character(0.5, 0.1),
    "reggae": Character(0.4, 0.2, 9500.0),
    "blues": Character(0.4, 0.25, 11_000.0),
    "jazz": Character(0.15, 0.05),
    "bossa nova": Character(0.15, 0.1, 12_000.0),
    "folk": Character(0.1, 0.05),
    "classical": Character(0.0, 0.0),
    "ambient": Character(0.0, 0.05),
}


def character_of(genre: str) -> Character:
    """The character of a genre, by the name of its style."""
    return _CHARACTERS.get(genre, _DEFAULT)


def saturate(sound: FloatArray, drive: float) -> None:
    """Bends what is loud, as transformers and tape do, and leaves alone what is quiet. In place."""
    if drive > 0.0:
        slope = np.float32((1.0 + 2.0 * drive) / (2.0 * _KNEE))
        bent = np.tanh(slope * sound) / slope
        sound += np.float32(min(1.0, drive)) * (bent - sound)


class LowPass:
    """A linear low-pass of a stereo stream: it delays all frequencies by 15 frames."""

    def __init__(self, cutoff_hz: float) -> None:
        at = np.arange(_TAPS) - (_TAPS - 1) / 2
        taps = np.sinc(2.0 * cutoff_hz / RATE_HZ * at) * np.hamming(_TAPS)
        self._taps = (taps / taps.sum()).astype(np.float32)
        self._before = np.zeros((2, _TAPS - 1), np.float32)

    def process(self, sound: FloatArray) -> FloatArray:
        """Filters the next block, [2, n]."""
        whole = np.concatenate([self._before, sound], axis=1)
        self._before = whole[:, -(_TAPS - 1) :]
        return np.stack([np.convolve(channel, self._taps, "valid") for channel in whole])
