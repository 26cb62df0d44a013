"""The pitched instruments: a table of timbres, pads, and the 808."""

from __future__ import annotations

from typing import Final

import numpy as np

from generation_service.models.base import FloatArray
from generation_service.models.sketch.composition.music_theory import frequency
from generation_service.models.sketch.pads import PADS
from generation_service.models.sketch.synthesis.tone_synthesis import (
    RATE_HZ,
    Timbre,
    render_pad,
    render_tone,
    shape_loop,
)

TIMBRES: Final[dict[str, Timbre]] = {
    "piano": Timbre(
        tilt=1.35, decay=0.9, damping=1.5, cutoff=(3200, 1400), cutoff_rate=3.0, attack=0.002,
        release=0.16, voices=(-1.6, 1.4), breath=0.35,
    ),
    "epiano": Timbre(
        partials=(1.0, 0.42, 0.12, 0.1, 0.03, 0.02, 0.06, 0.02), decay=0.8, damping=2.6, attack=0.003,
        release=0.14, voices=(-3.0, 3.0), drive=0.35,
    ),
    "guitar": Timbre(
        tilt=1.1, decay=1.1, damping=2.6, cutoff=(4200, 1500), cutoff_rate=6.0, attack=0.002,
        release=0.09, voices=(-2.0, 2.0), breath=0.5,
    ),
    "distorted guitar": Timbre(
        tilt=0.9, decay=0.35, damping=0.3, cutoff=(6000, 4000), attack=0.003, release=0.05,
        voices=(-6.0, 6.0), drive=5.0,
    ),
    "lead guitar": Timbre(
        tilt=1.0, decay=0.3, damping=0.2, cutoff=(5000, 3500), attack=0.005, release=0.08,
        voices=(-3.0, 3.0), drive=3.0, vibrato=22.0,
    ),
    "harp": Timbre(
        tilt=1.6, decay=1.5, damping=2.2, attack=0.002, release=0.5, voices=(-1.0, 1.0), breath=0.2,
    ),
    "organ": Timbre(
        partials=(1.0, 0.8, 0.5, 0.5, 0.0, 0.3, 0.0, 0.3), attack=0.008, release=0.06,
        voices=(-4.0, 4.0), vibrato=5.0, drive=0.3,
    ),
    "brass": Timbre(
        tilt=0.9, cutoff=(700, 2600), cutoff_rate=14.0, attack=0.03, release=0.09,
        voices=(-5.0, 5.0), vibrato=7.0,
    ),
    "flute": Timbre(
        partials=(1.0, 0.32, 0.14, 0.05, 0.02), attack=0.05, release=0.1, voices=(-2.0, 2.0),
        vibrato=16.0, breath=0.5,
    ),
    "bells": Timbre(
        partials=(1.0, 0.0, 0.3, 0.5, 0.0, 0.0, 0.12, 0.1, 0.0, 0.06), decay=2.2, damping=1.2,
        attack=0.002, release=0.5, voices=(-3.0, 3.0),
    ),
    "synth": Timbre(
        tilt=1.0, cutoff=(5200, 1800), cutoff_rate=5.0, resonance=0.5, attack=0.006, release=0.12,
        voices=(-9.0, 8.0, -2.0, 3.0), vibrato=6.0,
    ),
    "pluck": Timbre(
        tilt=1.0, decay=3.0, cutoff=(5200, 500), cutoff_rate=9.0, resonance=0.4, attack=0.003,
        release=0.12, voices=(-7.0, 7.0),
    ),
    "stab": Timbre(
        tilt=1.0, decay=2.2, cutoff=(4200, 700), cutoff_rate=8.0, resonance=0.2, attack=0.004,
        release=0.1, voices=(-10.0, 10.0, -3.0, 3.0),
    ),
    "bass": Timbre(
        tilt=1.5, decay=1.0, damping=2.0, cutoff=(1400, 600), cutoff_rate=7.0, attack=0.004,
        release=0.05, drive=0.5, breath=0.1,
    ),
    "upright bass": Timbre(
        tilt=1.7, decay=1.7, damping=3.0, cutoff=(1200, 450), cutoff_rate=9.0, attack=0.006,
        release=0.07, breath=0.3,
    ),
    "synth bass": Timbre(
        tilt=1.0, decay=0.6, cutoff=(1900, 260), cutoff_rate=11.0, resonance=0.7, attack=0.003,
        release=0.04, drive=0.8,
    ),
    "acid bass": Timbre(
        tilt=1.0, decay=2.5, cutoff=(2400, 240), cutoff_rate=14.0, resonance=2.2, attack=0.003,
        release=0.03, drive=0.8,
    ),
    "rumble": Timbre(
        tilt=1.6, decay=1.5, cutoff=(320, 140), cutoff_rate=6.0, attack=0.006, release=0.04, drive=1.0,
    ),
    "reese": Timbre(
        tilt=1.0, cutoff=(520, 900), cutoff_rate=2.5, resonance=0.4, attack=0.006, release=0.05,
        voices=(-14.0, 15.0), drive=0.9,
    ),
    "soft bass": Timbre(tilt=2.2, decay=0.25, cutoff=(600, 400), attack=0.012, release=0.15, drive=0.4),
}  # fmt: skip


STAND_INS: Final[dict[str, str]] = {
    "supersaw": "stab",
    "wobble": "reese",
    "growl": "reese",
    "saw bass": "synth bass",
    "sub": "soft bass",
    "clav": "pluck",
    "muted guitar": "guitar",
    "slap bass": "bass",
    "pick bass": "bass",
    "dub bass": "soft bass",
    "clean guitar": "guitar",
    "nylon guitar": "guitar",
    "steel guitar": "guitar",
    "banjo": "guitar",
    "fiddle": "flute",
    "sax": "brass",
    "trumpet": "brass",
    "synth brass": "synth",
    "vibraphone": "bells",
    "marimba": "bells",
    "kalimba": "bells",
    "square lead": "synth",
}
"""Sounds that another one stands in for."""


def render_instrument(name: str, pitches: tuple[int, ...], gate: int, glide: int = 0, seed: int = 0) -> FloatArray:
    """A note or chord of an instrument, held for `gate` frames: float32 [1 or 2, frames].

    `glide` is the interval in semitones by which an 808 slides. Raises KeyError if the name is unknown.
    """
    name = STAND_INS.get(name, name)
    if name == "808":
        return _render_808(pitches[0], gate, glide)
    if name in PADS:
        voice = PADS[name]
        loop = render_pad(tuple(float(p) for p in pitches), voice.tilt, voice.brightness_hz, voice.width_cents, seed)
        return shape_loop(loop, gate, voice.attack, voice.release)
    return render_tone(TIMBRES[name], pitches, gate)


def _render_808(pitch: int, gate: int, glide: int) -> FloatArray:
    """A sine that starts with the falling pitch of a kick, saturated so that it is audible on small speakers."""
    release = int(0.06 * RATE_HZ)
    frames = min(gate, int(1.6 * RATE_HZ)) + release
    seconds = np.arange(frames, dtype=np.float64) / RATE_HZ
    semitones = 16.0 * np.exp(-seconds / 0.018)
    if glide:
        middle, slope = 0.62 * gate / RATE_HZ, 0.02
        semitones += glide / (1.0 + np.exp(-np.clip((seconds - middle) / slope, -40.0, 40.0)))
    cycles = np.cumsum(frequency(pitch) / RATE_HZ * np.exp2(semitones / 12.0))
    wave = np.sin(2.0 * np.pi * (cycles - np.floor(cycles))).astype(np.float32)
    body = np.exp(-seconds / 0.9).astype(np.float32)
    out: FloatArray = np.tanh(2.2 * wave * body)[None, :].astype(np.float32) * np.float32(0.42)
    rise = 48
    out[:, :rise] *= np.linspace(0.0, 1.0, rise, dtype=np.float32)
    out[:, -release:] *= np.cos(np.linspace(0.0, np.pi / 2, release, dtype=np.float32)) ** 2
    return out
