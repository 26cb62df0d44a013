"""Bars and tines that are struck: each mode of them is a sine, and the modes are no harmonics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from generation_service.models.base import FloatArray
from generation_service.models.sketch.composition.music_theory import frequency
from generation_service.models.sketch.synthesis.tone_synthesis import NYQUIST_MARGIN, RATE_HZ, envelope

_LEVEL: Final = 0.30
_MIDDLE_C_HZ: Final = 261.6
_SHORTEST_FRAMES: Final = RATE_HZ // 5


@dataclass(frozen=True, slots=True)
class Bars:
    """The modes of an instrument, and how they fade."""

    modes: tuple[tuple[float, float, float], ...]
    """Of each mode: frequency over that of the lowest, level, and how many times as fast as the lowest it fades."""
    decay: float
    """Decay rate of the lowest mode at middle C, in 1/s."""
    release: float
    """Seconds after the note is let go. What is never damped rings on."""
    tracking: float = 0.4
    """How the decay rate grows with the pitch: by this power of the frequency over middle C's."""
    tremolo: tuple[float, float] = (0.0, 0.0)
    """Rate in Hz and depth of the rotating discs of a vibraphone."""
    knock: float = 0.0
    """Level of the mallet."""


BARS: Final[dict[str, Bars]] = {
    "bells": Bars(((1.0, 1.0, 1.0), (2.76, 0.5, 1.7), (5.4, 0.28, 3.0), (8.93, 0.12, 5.0)), 1.5, 0.9),
    "vibraphone": Bars(
        ((1.0, 1.0, 1.0), (4.0, 0.28, 3.0), (10.0, 0.07, 8.0)), 0.8, 0.35, tremolo=(5.2, 0.22), knock=0.25
    ),
    "marimba": Bars(((1.0, 1.0, 1.0), (3.93, 0.32, 3.5), (9.5, 0.1, 9.0)), 4.6, 0.5, knock=0.6),
    "kalimba": Bars(((1.0, 1.0, 1.0), (6.27, 0.16, 6.0), (2.0, 0.10, 2.0)), 2.6, 0.5, knock=0.7),
}


def render_bars(name: str, pitches: tuple[int, ...], gate: int, hardness: float = 0.85) -> FloatArray:
    """A note or chord: float32 [2, frames]. A hard mallet excites the higher modes more."""
    bars = BARS[name]
    release = int(bars.release * RATE_HZ)
    frames = max(gate, _SHORTEST_FRAMES) + release
    slowest = bars.decay * min((frequency(pitch) / _MIDDLE_C_HZ) ** bars.tracking for pitch in pitches)
    frames = min(frames, int(6.9 / slowest * RATE_HZ) + release)
    seconds = np.arange(frames, dtype=np.float32) / np.float32(RATE_HZ)
    out = np.zeros((2, frames), np.float32)
    for pitch in pitches:
        base = frequency(pitch)
        rate = bars.decay * (base / _MIDDLE_C_HZ) ** bars.tracking
        for number, (ratio, level, speed) in enumerate(bars.modes):
            if ratio * base > NYQUIST_MARGIN * RATE_HZ:
                continue
            excited = level * (hardness / 0.85) ** (0.9 * number)
            ringing = np.sin(np.float32(2.0 * np.pi * ratio * base) * seconds + np.float32(0.4 * number))
            ringing *= np.exp(-seconds * np.float32(rate * speed)) * np.float32(excited)
            # The modes come from different places of the bar.
            lean = np.float32(0.12 * (-1) ** number)
            out[0] += (1.0 - lean) * ringing
            out[1] += (1.0 + lean) * ringing
    out *= np.float32(_LEVEL / np.sqrt(len(pitches)))
    if bars.knock:
        knock = _knock()
        out[:, : len(knock)] += np.float32(bars.knock * hardness) * knock[:frames]
    rate_hz, depth = bars.tremolo
    if depth:
        sway = np.float32(depth) * np.sin(np.float32(2.0 * np.pi * rate_hz) * seconds)
        out *= np.stack([1.0 + sway, 1.0 - 0.6 * sway])
    envelope(out, 0.001, release)
    return out


def _knock() -> FloatArray:
    """A mallet on wood: a fiftieth of a second."""
    frames = RATE_HZ // 50
    seconds = np.arange(frames, dtype=np.float32) / np.float32(RATE_HZ)
    tone = np.sin(np.float32(2.0 * np.pi * 720.0) * seconds) + 0.6 * np.sin(np.float32(2.0 * np.pi * 1480.0) * seconds)
    out: FloatArray = np.float32(0.12) * tone * np.exp(-seconds / np.float32(0.0035))
    return out.astype(np.float32)
