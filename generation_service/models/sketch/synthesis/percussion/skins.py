"""Drums with skins: kicks, snares, toms, and the drums of other regions."""

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
    sweep,
    widened,
)


def kick(
    strike: Strike, *, length: float, start_hz: float, end_hz: float, body: float, click: float, drive: float,
    beater_hz: float = 2600.0, fall: float = 0.012, hold: float = 0.012,
) -> FloatArray:  # fmt: skip
    """A beater on a skin: a click, a fast fall of the pitch, and a body that is held before it decays."""
    sound = sweep(length, start_hz, end_hz, fall) * decay(length, body, hold)
    # What small speakers have of a kick is around 100 Hz.
    add(sound, sweep(0.16, start_hz * 0.6, 2.0 * end_hz, 0.03) * decay(0.16, 0.045), 0.5)
    hard = 0.4 + 0.8 * strike.hardness
    add(sound, noise(strike, 0.012, 1500.0, 8000.0, seed=1)[0] * decay(0.012, 0.0025), click * hard * 0.5)
    beater = sweep(0.02, beater_hz * 1.6, beater_hz, 0.002) * decay(0.02, 0.0035)
    add(sound, beater, click * hard)
    out: FloatArray = np.tanh(np.float32(drive) * sound)
    return out


def snare(
    strike: Strike, *, tone_hz: float, body: float, rattle: float, low_hz: float, mix: float, ring: float = 0.0,
    high_hz: float = 9500.0, crack: float = 0.5,
) -> FloatArray:  # fmt: skip
    """Two modes of the skin, a fifth apart, so that they are no third of a key; the wires answer a little later."""
    length = 6.0 * max(body, rattle)
    wires = noise(strike, length, low_hz, high_hz, seed=2)[0]
    wires *= 0.75 * decay(length, 0.35 * rattle) + 0.45 * decay(length, rattle)
    wires *= rise(length, 0.0025)
    head = sweep(length, tone_hz * 1.45, tone_hz, 0.009) + 0.45 * sweep(length, tone_hz * 2.1, tone_hz * 1.5, 0.008)
    sound = wires * np.float32(mix) + head * decay(length, body) * np.float32(0.6 + 0.4 * strike.hardness)
    if ring:
        sound += np.float32(ring) * modes(length, ((tone_hz * 2.0, 1.0, 2.2 * body), (tone_hz * 3.0, 0.5, 1.6 * body)))
    stick = noise(strike, 0.01, 2500.0, 10_000.0, seed=14)[0] * decay(0.01, 0.0018)
    add(sound, stick, crack * strike.hardness)
    dry: FloatArray = np.tanh(np.float32(1.25) * sound)
    room = noise(strike, 0.16, 500.0, 6000.0, seed=15, channels=2) * decay(0.16, 0.035) * rise(0.16, 0.006)
    return widened(dry, room * np.float32(0.05))


def gated_snare(strike: Strike) -> FloatArray:
    """The snare of the eighties: a big room that is cut off."""
    dry = snare(strike, tone_hz=180.0, body=0.09, rattle=0.12, low_hz=900.0, mix=0.55)
    length = 0.34
    room = noise(strike, length, 350.0, 7500.0, seed=16, channels=2) * rise(length, 0.012)
    # The gate is open for a quarter of a second.
    gate = np.clip((0.25 - np.arange(room.shape[1]) / 32_000.0) / 0.03, 0.0, 1.0).astype(np.float32)
    out = np.zeros((2, max(dry.shape[1], room.shape[1])), np.float32)
    add(out, dry, 1.0)
    return add(out, room * gate * decay(length, 0.3), 0.24)


def dub_snare(strike: Strike) -> FloatArray:
    """Snare, clap and a long tail in one, for half-time drops."""
    dry = snare(strike, tone_hz=205.0, body=0.10, rattle=0.16, low_hz=700.0, mix=0.6)
    length = 0.75
    tail = noise(strike, length, 600.0, 8000.0, seed=17, channels=2) * decay(length, 0.14) * rise(length, 0.004)
    out = np.zeros((2, max(dry.shape[1], tail.shape[1])), np.float32)
    add(out, dry, 1.0)
    return add(out, tail, 0.2)


def tom(strike: Strike, *, hz: float, ring: float = 0.15) -> FloatArray:
    length = 4.0 * ring
    sound = sweep(length, hz * (1.35 + 0.35 * strike.hardness), hz, 0.03) * decay(length, ring, 0.008)
    sound += 0.25 * sweep(length, hz * 2.0, hz * 1.5, 0.02) * decay(length, 0.4 * ring)
    stick = noise(strike, 0.02, 800.0, 5000.0, seed=4)[0] * decay(0.02, 0.005)
    add(sound, stick, 0.12 + 0.12 * strike.hardness)
    room = noise(strike, 0.2, 200.0, 2500.0, seed=18, channels=2) * decay(0.2, 0.05)
    return widened(np.tanh(1.3 * sound).astype(np.float32), room * np.float32(0.03))


def hand_drum(strike: Strike, *, hz: float, ring: float, slap: float) -> FloatArray:
    """Congas and bongos: an open tone, and a slap if it is hit hard."""
    length = 4.5 * ring
    tone = sweep(length, hz * 1.12, hz, 0.012) * decay(length, ring)
    tone += modes(length, ((hz * 1.5, 0.3, 0.45 * ring), (hz * 2.4, 0.16, 0.25 * ring)))
    palm = noise(strike, 0.04, 900.0, 5500.0, seed=19)[0] * decay(0.04, 0.007)
    return add(tone, palm, slap * (0.25 + 0.75 * strike.hardness))


def timbale(strike: Strike) -> FloatArray:
    sound = modes(0.5, ((340.0, 1.0, 0.1), (510.0, 0.6, 0.08), (790.0, 0.35, 0.05), (1180.0, 0.22, 0.04)))
    return add(sound, noise(strike, 0.02, 2000.0, 9000.0, seed=20)[0] * decay(0.02, 0.003), 0.35)


def timpani(strike: Strike) -> FloatArray:
    """The preferred modes of a kettledrum are nearly harmonic: 1, 3/2, 2, 5/2."""
    hz = 98.0
    sound = modes(2.2, ((hz, 1.0, 0.7), (hz * 1.5, 0.55, 0.5), (hz * 1.99, 0.3, 0.35), (hz * 2.44, 0.14, 0.25)))
    add(sound, sweep(0.1, hz * 1.3, hz * 0.9, 0.02) * decay(0.1, 0.03), 0.4)
    return add(sound, noise(strike, 0.03, 200.0, 1500.0, seed=26)[0] * decay(0.03, 0.006), 0.12)


def stomp(strike: Strike) -> FloatArray:
    """Several feet on a wooden floor."""
    out = np.zeros((2, int(0.4 * 32_000)), np.float32)
    random = np.random.default_rng(27 + strike.variant)
    for foot in range(4):
        thump = sweep(0.25, 120.0 + 20.0 * foot, 62.0 + 6.0 * foot, 0.02) * decay(0.25, 0.06)
        side = random.uniform(0.3, 1.0, 2).astype(np.float32)
        add(out, side[:, None] * thump, 0.6, delay=float(random.uniform(0.0, 0.018)))
    return add(out, noise(strike, 0.15, 150.0, 1800.0, seed=28, channels=2) * decay(0.15, 0.03), 0.12)
