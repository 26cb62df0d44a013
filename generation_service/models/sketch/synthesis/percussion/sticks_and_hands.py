"""Small percussion: claps, snaps, sticks, shakers and brushes."""

from __future__ import annotations

import numpy as np

from generation_service.models.base import FloatArray
from generation_service.models.sketch.synthesis.percussion.hit_synthesis import (
    ONSET_FRAMES,
    Strike,
    add,
    decay,
    modes,
    noise,
    rise,
    seconds_of,
)


def clap(strike: Strike, *, rattle: float = 0.075, hands: int = 4, low_hz: float = 900.0) -> FloatArray:
    """Several hand claps about 9 ms apart, followed by the decay of the room."""
    length = 0.42
    sound = noise(strike, length, low_hz, 5600.0, seed=3, channels=2)
    shape = np.zeros(sound.shape[1], np.float32)
    for number in range(hands):
        start = int(number * 0.0095 * 32_000)
        fall = 0.004 if number < hands - 1 else rattle
        rest = np.exp(-seconds_of(length)[: len(shape) - start] / np.float32(fall))
        rest[:ONSET_FRAMES] *= np.linspace(0.0, 1.0, ONSET_FRAMES, dtype=np.float32)
        shape[start:] = np.maximum(shape[start:], rest)
    out: FloatArray = sound * shape
    return out


def snap(strike: Strike) -> FloatArray:
    out = clap(strike, rattle=0.03, hands=2, low_hz=1700.0)
    return add(out, modes(0.05, ((2350.0, 1.0, 0.008), (1650.0, 0.6, 0.01))), 1.6)


def brush(strike: Strike) -> FloatArray:
    length = 0.3
    sweep = noise(strike, length, 1600.0, 8500.0, seed=12, channels=2)
    out: FloatArray = sweep * rise(length, 0.022 - 0.014 * strike.hardness) * decay(length, 0.075)
    return add(out, modes(length, ((190.0, 0.5, 0.03),)), 0.5 * strike.hardness)


def rim(strike: Strike) -> FloatArray:
    sound = modes(0.09, ((1720.0, 1.0, 0.011), (2610.0, 0.5, 0.007), (520.0, 0.6, 0.018)))
    return add(sound, noise(strike, 0.02, 1500.0, 9000.0, seed=5)[0] * decay(0.02, 0.003), 0.3)


def cross_stick(strike: Strike) -> FloatArray:
    """The butt of a stick on the rim, the tip on the skin: wood, and a little of the drum."""
    sound = modes(0.16, ((1080.0, 1.0, 0.016), (1790.0, 0.55, 0.01), (430.0, 0.6, 0.026), (215.0, 0.35, 0.045)))
    return add(sound, noise(strike, 0.02, 1200.0, 6000.0, seed=35)[0] * decay(0.02, 0.004), 0.25)


def shaker(strike: Strike) -> FloatArray:
    """The grains are thrown, and land one after the other."""
    length = 0.12
    attack = 0.02 - 0.012 * strike.hardness
    grains = noise(strike, length, 5200.0, 12_000.0, seed=6, channels=2)
    out: FloatArray = grains * rise(length, attack) ** 2 * decay(length, 0.024)
    return out
