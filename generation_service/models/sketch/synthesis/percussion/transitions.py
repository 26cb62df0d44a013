"""Sounds that lead from one section to the next. Those that rise are exactly two seconds long, and end on the beat."""

from __future__ import annotations

from typing import Final

import numpy as np

from generation_service.models.base import FloatArray
from generation_service.models.sketch.synthesis.percussion.hit_synthesis import (
    Strike,
    add,
    decay,
    noise,
    rise,
    seconds_of,
    sweep,
)
from generation_service.models.sketch.synthesis.percussion.metals import crash

RISE_SECONDS: Final = 2.0


def riser(strike: Strike) -> FloatArray:
    """Brightening noise over a tone that goes up by an octave."""
    length = RISE_SECONDS
    bright = noise(strike, length, 2500.0, 10_000.0, seed=8, channels=2)
    dull = noise(strike, length, 500.0, 2500.0, seed=9, channels=2)
    way = seconds_of(length) / np.float32(length)
    # Tremolo that becomes faster announces the beat.
    tremolo = 0.8 + 0.2 * np.sin(np.float32(2.0 * np.pi) * (2.0 + 7.0 * way) * seconds_of(length))
    out: FloatArray = (dull * (1.0 - way) + bright * way) * way**2 * tremolo
    return out


def reverse_crash(strike: Strike) -> FloatArray:
    tail = crash(strike, length=RISE_SECONDS, ring=0.7)
    out: FloatArray = np.ascontiguousarray(tail[:, ::-1])
    return out


def swell(strike: Strike) -> FloatArray:
    """A roll with mallets on a hung cymbal."""
    length = RISE_SECONDS
    wash = noise(strike, length, 1800.0, 11_000.0, seed=36, channels=2, order=3)
    low = noise(strike, length, 400.0, 2200.0, seed=37, channels=2)
    way = seconds_of(length) / np.float32(length)
    roll = 0.85 + 0.15 * np.sin(np.float32(2.0 * np.pi * 13.0) * seconds_of(length))
    out: FloatArray = (0.5 * low * way + wash * way**3) * roll
    return out


def impact(strike: Strike) -> FloatArray:
    """What a drop begins with: a low boom, and a room that falls silent."""
    length = 2.4
    boom = sweep(length, 120.0, 36.0, 0.12) * decay(length, 0.5)
    boom = np.tanh(2.0 * boom).astype(np.float32)
    out = np.stack([boom, boom])
    air = noise(strike, length, 250.0, 5000.0, seed=38, channels=2) * decay(length, 0.32) * rise(length, 0.004)
    return add(out, air, 0.22)
