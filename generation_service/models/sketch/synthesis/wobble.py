"""Basses whose filter opens and closes in time: between two sounds of the same note, a low oscillator chooses."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from generation_service.models.base import FloatArray
from generation_service.models.sketch.synthesis.tone_synthesis import RATE_HZ, Timbre, envelope, overdrive, render_tone

_BODY: Final = Timbre(tilt=0.9, attack=0.004, release=0.04, voices=(-9.0, 9.0), dynamics=0.3)
_VOWELS: Final = {
    "wobble": (
        replace(_BODY, cutoff=(210.0, 210.0), resonance=0.6),
        replace(_BODY, cutoff=(3000.0, 3000.0), resonance=1.6),
    ),
    # From "oh" to "ah": two formants move.
    "growl": (
        replace(_BODY, cutoff=(500.0, 500.0), formants=((400.0, 12.0, 0.25), (760.0, 10.0, 0.25))),
        replace(_BODY, cutoff=(4200.0, 4200.0), formants=((730.0, 12.0, 0.25), (1900.0, 14.0, 0.3))),
    ),
}
WOBBLES: Final = frozenset(_VOWELS)
_SUB: Final = Timbre(partials=(1.0, 0.05), attack=0.004, release=0.04, dynamics=0.0)
_DEFAULT_HZ: Final = 3.0
_DRIVE: Final = 1.8


def render_wobble(name: str, pitch: int, gate: int, lfo_hz: float, hardness: float = 0.85) -> FloatArray:
    """A note whose filter opens `lfo_hz` times a second, over a sub-bass that stays: float32 [2, frames]."""
    closed, opened = (render_tone(timbre, (pitch,), gate, hardness) for timbre in _VOWELS[name])
    seconds = np.arange(closed.shape[1], dtype=np.float32) / np.float32(RATE_HZ)
    way = np.float32(0.5) - np.float32(0.5) * np.cos(np.float32(2.0 * np.pi * (lfo_hz or _DEFAULT_HZ)) * seconds)
    out = overdrive(closed + way * (opened - closed), _DRIVE)
    out += np.float32(0.9) * render_tone(_SUB, (pitch,), gate)
    out *= np.float32(0.8)
    envelope(out, _BODY.attack, int(_BODY.release * RATE_HZ))
    return out
