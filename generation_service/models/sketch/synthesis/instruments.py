"""The pitched instruments: which way each is synthesised, and how it is articulated."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from generation_service.models.base import FloatArray
from generation_service.models.sketch.composition.music_theory import frequency
from generation_service.models.sketch.pads import PADS
from generation_service.models.sketch.synthesis.struck_bars import BARS, render_bars
from generation_service.models.sketch.synthesis.timbres import TIMBRES
from generation_service.models.sketch.synthesis.tone_synthesis import (
    RATE_HZ,
    Timbre,
    render_pad,
    render_tone,
    shape_loop,
)
from generation_service.models.sketch.synthesis.wobble import WOBBLES, render_wobble

INSTRUMENTS: Final = frozenset({*TIMBRES, *PADS, *BARS, *WOBBLES, "808"})
"""The names of all pitched sounds."""

_SCOOP_CENTS: Final = 120.0
_MUTE_SECONDS: Final = 0.14


def render_instrument(
    name: str, pitches: tuple[int, ...], gate: int, glide: int = 0, seed: int = 0, *, hardness: float = 0.85,
    articulation: str = "", lfo_hz: float = 0.0,
) -> FloatArray:  # fmt: skip
    """A note or chord of an instrument, held for `gate` frames: float32 [1 or 2, frames].

    `glide` is the interval in semitones by which an 808 slides, and `lfo_hz` how often a wobble opens. `articulation`
    is that of a note; an instrument that can't do it plays as always. Raises KeyError if the name is unknown.
    """
    if name == "808":
        return _render_808(pitches[0], gate, glide)
    if name in PADS:
        voice = PADS[name]
        loop = render_pad(
            tuple(float(p) for p in pitches), voice.tilt, voice.brightness_hz, voice.width_cents, seed, voice.formants
        )
        return shape_loop(loop, gate, voice.attack, voice.release)
    if name in BARS:
        return render_bars(name, pitches, gate, hardness)
    if name in WOBBLES:
        return render_wobble(name, pitches[0], gate, lfo_hz, hardness)
    timbre = TIMBRES[name]
    if articulation == "mute":
        return render_tone(_muted(timbre), pitches, min(gate, int(_MUTE_SECONDS * RATE_HZ)), hardness)
    scoop_cents = _SCOOP_CENTS if articulation == "slide" else 0.0
    return render_tone(timbre, pitches, gate, hardness, scoop_cents)


def _muted(timbre: Timbre) -> Timbre:
    """The palm lies on the strings: the highs are gone, and the rest soon after."""
    high, low = timbre.cutoff
    return replace(
        timbre, decay=timbre.decay + 9.0, cutoff=(min(high, 1600.0), min(low, 500.0)), cutoff_rate=22.0, release=0.03
    )


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
