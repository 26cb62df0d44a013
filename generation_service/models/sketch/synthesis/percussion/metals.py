"""Cymbals, hats and bells."""

from __future__ import annotations

import numpy as np

from generation_service.models.base import FloatArray
from generation_service.models.sketch.synthesis.percussion.hit_synthesis import (
    Strike,
    add,
    decay,
    modes,
    noise,
    rise,
    seconds_of,
)

_PARTIALS_HZ = (3153.0, 3619.0, 4129.0, 5303.0, 6407.0, 7211.0, 8219.0, 9973.0)


def metal(
    strike: Strike, *, length: float, ring: float, low_hz: float, seed: int, pitch: float = 1.0, tone: float = 0.3
) -> FloatArray:
    """Inharmonic sines and high-passed noise, which differs between left and right. The lower half dies away first."""
    high = noise(strike, length, max(low_hz, 6500.0), 12_500.0, seed=seed, channels=2, order=6)
    middle = noise(strike, length, low_hz, 7000.0, seed=seed + 40, channels=2, order=6)
    seconds = seconds_of(length)
    ringing = np.zeros((2, len(seconds)), np.float32)
    for number, hz in enumerate(_PARTIALS_HZ):
        if low_hz * 0.6 < hz * pitch < 14_000.0:
            ringing[number % 2] += np.sin(np.float32(2.0 * np.pi * hz * pitch) * seconds + np.float32(number))
    ringing += 0.5 * ringing[::-1]
    out: FloatArray = 0.62 * high * decay(length, ring)
    out += (0.4 * middle + np.float32(tone) * ringing) * decay(length, 0.75 * ring)
    stick = noise(strike, 0.006, 5000.0, 12_000.0, seed=seed + 80)[0] * decay(0.006, 0.0012)
    return add(out, stick, 0.8 * strike.hardness)


def ride(strike: Strike) -> FloatArray:
    """The ping of a stick over a long wash."""
    length = 1.3
    wash = metal(strike, length=length, ring=0.36, low_hz=4000.0, seed=11, pitch=0.83)
    ping = modes(length, ((2390.0, 0.5, 0.12), (3720.0, 1.0, 0.07), (5410.0, 0.7, 0.05), (6130.0, 0.4, 0.2)))
    out: FloatArray = 0.42 * wash + ping * np.float32(0.6 + 0.6 * strike.hardness)
    return out


def crash(strike: Strike, *, length: float = 2.4, ring: float = 0.62, pitch: float = 0.9) -> FloatArray:
    """A crash blooms: its highs come a few milliseconds after the stick."""
    out = metal(strike, length=length, ring=ring, low_hz=2600.0, seed=25, pitch=pitch, tone=0.16)
    out *= 0.55 + 0.45 * rise(length, 0.03)
    body = noise(strike, length, 700.0, 3500.0, seed=29, channels=2) * decay(length, 0.22)
    return add(out, body, 0.25)


def china(strike: Strike) -> FloatArray:
    out = metal(strike, length=1.1, ring=0.24, low_hz=1500.0, seed=31, pitch=0.62, tone=0.4)
    return add(out, noise(strike, 1.1, 900.0, 4500.0, seed=32, channels=2) * decay(1.1, 0.16), 0.55)


def cowbell(strike: Strike) -> FloatArray:
    """Two square waves a little more than a fifth apart, as in the TR-808."""
    length = 0.32
    seconds = seconds_of(length)
    sound = np.zeros(len(seconds), np.float32)
    for hz in (545.0, 815.0):
        for k in (1, 3, 5, 7, 9):
            sound += np.sin(np.float32(2.0 * np.pi * hz * k) * seconds) / np.float32(k)
    out: FloatArray = sound * (0.6 * decay(length, 0.016) + 0.4 * decay(length, 0.075))
    return out


def tambourine(strike: Strike) -> FloatArray:
    """Jingles that are hit one after the other."""
    length = 0.24
    out = np.zeros((2, int(length * 32_000)), np.float32)
    random = np.random.default_rng(33 + strike.variant)
    for jingle in range(7):
        one = noise(strike, 0.14, 6800.0, 13_000.0, seed=34 + jingle)[0] * decay(0.14, 0.02 + 0.003 * jingle)
        side = random.uniform(0.35, 1.0, 2).astype(np.float32)
        add(out, side[:, None] * one, 0.7, delay=float(random.exponential(0.011)))
    return out
