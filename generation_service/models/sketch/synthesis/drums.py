"""Drum hits as one-shots, synthesised from swept sines and shaped noise."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final

import numpy as np

from generation_service.models.base import FloatArray
from generation_service.models.sketch.synthesis.tone_synthesis import RATE_HZ

_ONSET_FRAMES: Final = 16  # 0.5 ms, which is still a hard attack but avoids a step from silence.


@lru_cache(maxsize=128)
def render_drum(name: str, tonic: int) -> FloatArray:
    """One hit with a peak of 1.0: float32 [1 or 2, frames]. Raises KeyError if the name is unknown.

    Kicks, snares and toms are tuned to the tonic (a pitch class) or its fifth, whichever is nearer, because a drum that
    rings at a note outside the key is dissonant.
    """
    name = STAND_INS.get(name, name)
    sound = np.atleast_2d(_RECIPES[name]()).astype(np.float32)
    if name in _HEAD_HZ:
        sound = _retuned(sound, _HEAD_HZ[name], tonic)
    sound[:, :_ONSET_FRAMES] *= np.linspace(0.0, 1.0, _ONSET_FRAMES, dtype=np.float32)
    tail = min(sound.shape[1] // 4, 800)
    sound[:, -tail:] *= np.linspace(1.0, 0.0, tail, dtype=np.float32)
    sound /= np.float32(np.max(np.abs(sound)))
    return sound


def _retuned(sound: FloatArray, head_hz: float, tonic: int) -> FloatArray:
    """The sound resampled by at most three and a half semitones."""
    pitch = 69.0 + 12.0 * np.log2(head_hz / 440.0)
    shifts = [(tonic + above - pitch + 6.0) % 12.0 - 6.0 for above in (0, 7)]
    ratio = 2.0 ** (min(shifts, key=abs) / 12.0)
    frames = sound.shape[1]
    at = np.arange(int(frames / ratio)) * ratio
    return np.stack([np.interp(at, np.arange(frames), channel) for channel in sound]).astype(np.float32)


def _seconds(length: float) -> FloatArray:
    out: FloatArray = np.arange(int(length * RATE_HZ), dtype=np.float32) / np.float32(RATE_HZ)
    return out


def _decay(length: float, time_constant: float) -> FloatArray:
    out: FloatArray = np.exp(-_seconds(length) / np.float32(time_constant))
    return out


def _noise(length: float, low_hz: float, high_hz: float, *, seed: int, channels: int = 1, order: int = 4) -> FloatArray:
    """Noise between two corner frequencies, filtered by FFT: [channels, frames], RMS 1."""
    frames = int(length * RATE_HZ)
    white = np.random.default_rng(seed).standard_normal((channels, frames), dtype=np.float32)
    if channels == 2:  # Half of it is common to both channels, so that it is still there in mono.
        white[1] = 0.5 * white[0] + 0.87 * white[1]
    # A power of two, because a prime length would make the FFT many times slower.
    size = 1 << (frames - 1).bit_length()
    hz = np.fft.rfftfreq(size, 1.0 / RATE_HZ).astype(np.float32) + np.float32(1.0)
    shape = 1.0 / np.sqrt((1.0 + (low_hz / hz) ** order) * (1.0 + (hz / high_hz) ** order))
    shaped = np.fft.irfft(np.fft.rfft(white, size, axis=1) * shape, size, axis=1)[:, :frames]
    out: FloatArray = (shaped / np.sqrt(np.mean(shaped**2))).astype(np.float32)
    return out


def _sweep(length: float, start_hz: float, end_hz: float, time_constant: float) -> FloatArray:
    """A sine whose frequency falls exponentially from one value to another."""
    seconds = _seconds(length).astype(np.float64)
    turns = end_hz * seconds
    turns += (start_hz - end_hz) * time_constant * (1.0 - np.exp(-seconds / time_constant))
    out: FloatArray = np.sin(2.0 * np.pi * (turns - np.floor(turns))).astype(np.float32)
    return out


def _kick(length: float, start_hz: float, end_hz: float, body: float, click: float, drive: float) -> FloatArray:
    sound = _sweep(length, start_hz, end_hz, 0.022) * _decay(length, body)
    tick = _noise(0.012, 1500.0, 7000.0, seed=1)[0] * _decay(0.012, 0.003)
    sound[: len(tick)] += np.float32(click) * tick
    out: FloatArray = np.tanh(np.float32(drive) * sound)
    return out


def _snare(tone_hz: float, body: float, rattle: float, low_hz: float, mix: float) -> FloatArray:
    length = 6.0 * max(body, rattle)
    sound = _noise(length, low_hz, 9000.0, seed=2) * _decay(length, rattle) * np.float32(mix)
    head = _sweep(length, tone_hz * 1.5, tone_hz, 0.012) + 0.5 * _sweep(length, tone_hz * 2.4, tone_hz * 1.7, 0.01)
    out: FloatArray = np.tanh(np.float32(1.2) * (sound + head * _decay(length, body)))
    return out


def _clap(rattle: float) -> FloatArray:
    """Several hand claps about 9 ms apart, followed by the decay of the room."""
    length = 0.32
    noise = _noise(length, 900.0, 5200.0, seed=3, channels=2)
    shape = np.zeros(noise.shape[1], np.float32)
    for number in range(4):
        start = int(number * 0.0095 * RATE_HZ)
        fall = 0.004 if number < 3 else rattle
        rest = np.exp(-_seconds(length)[: len(shape) - start] / np.float32(fall))
        rest[:_ONSET_FRAMES] *= np.linspace(0.0, 1.0, _ONSET_FRAMES, dtype=np.float32)
        shape[start:] = np.maximum(shape[start:], rest)
    out: FloatArray = noise * shape
    return out


def _metal(length: float, ring: float, low_hz: float, seed: int, pitch: float = 1.0) -> FloatArray:
    """Cymbals and hats: inharmonic sines and high-passed noise, which differs between left and right."""
    noise = _noise(length, low_hz, 11_500.0, seed=seed, channels=2, order=6)
    seconds = _seconds(length)
    ringing = np.zeros(len(seconds), np.float32)
    for hz in (3153.0, 4129.0, 5303.0, 6407.0, 8219.0, 9973.0):
        if hz * pitch > low_hz * 0.6:
            ringing += np.sin(np.float32(2.0 * np.pi * hz * pitch) * seconds)
    out: FloatArray = (noise * 0.8 + 0.35 * ringing) * _decay(length, ring)
    return out


def _ride() -> FloatArray:
    """The ping of a stick over a long wash."""
    length = 1.1
    wash = _metal(length, 0.32, 4200.0, 11, 0.83)
    ping = np.zeros(wash.shape[1], np.float32)
    for hz, level in ((2390.0, 0.6), (3720.0, 1.0), (5410.0, 0.7)):
        ping += np.float32(level) * np.sin(np.float32(2.0 * np.pi * hz) * _seconds(length))
    out: FloatArray = 0.55 * wash + ping * (_decay(length, 0.05) + 0.15 * _decay(length, 0.3))
    return out


def _brush() -> FloatArray:
    noise = _noise(0.26, 1400.0, 7000.0, seed=12)
    rise = np.minimum(1.0, _seconds(0.26) / np.float32(0.02))
    out: FloatArray = noise * rise * _decay(0.26, 0.07)
    return out


def _tom(hz: float) -> FloatArray:
    sound = _sweep(0.42, hz * 1.7, hz, 0.03) * _decay(0.42, 0.13)
    tick = _noise(0.02, 800.0, 5000.0, seed=4)[0] * _decay(0.02, 0.006)
    sound[: len(tick)] += 0.15 * tick
    return sound


def _rim() -> FloatArray:
    length = 0.07
    tone = np.sin(np.float32(2.0 * np.pi * 1720.0) * _seconds(length))
    tone += 0.6 * np.sin(np.float32(2.0 * np.pi * 520.0) * _seconds(length))
    out: FloatArray = (tone + 0.3 * _noise(length, 1500.0, 8000.0, seed=5)[0]) * _decay(length, 0.012)
    return out


def _shaker() -> FloatArray:
    rise = np.minimum(1.0, _seconds(0.09) / np.float32(0.014))
    out: FloatArray = _noise(0.09, 5500.0, 11_000.0, seed=6) * rise * _decay(0.09, 0.022)
    return out


def _riser() -> FloatArray:
    """Two seconds of brightening noise, for the bar before a drop."""
    length = 2.0
    bright = _noise(length, 2500.0, 10_000.0, seed=8, channels=2)
    dull = _noise(length, 500.0, 2500.0, seed=9, channels=2)
    rise = _seconds(length) / np.float32(length)
    out: FloatArray = (dull * (1.0 - rise) + bright * rise) * rise**2
    return out


# The frequency at which the head of each tuned drum rings.
_HEAD_HZ: Final = {
    "kick": 52.0,
    "boom kick": 48.0,
    "trap kick": 50.0,
    "house kick": 50.0,
    "techno kick": 46.0,
    "soft kick": 55.0,
    "snare": 185.0,
    "boom snare": 200.0,
    "trap snare": 240.0,
    "break snare": 225.0,
    "rock snare": 175.0,
    "lofi snare": 190.0,
    "tom high": 165.0,
    "tom mid": 125.0,
    "tom low": 92.0,
}

_RECIPES: Final[dict[str, Callable[[], FloatArray]]] = {
    "kick": partial(_kick, 0.36, 170.0, 52.0, 0.11, 0.25, 1.4),
    "boom kick": partial(_kick, 0.42, 150.0, 48.0, 0.13, 0.18, 2.0),
    "trap kick": partial(_kick, 0.30, 190.0, 50.0, 0.09, 0.25, 2.0),
    "house kick": partial(_kick, 0.34, 230.0, 50.0, 0.12, 0.2, 2.2),
    "techno kick": partial(_kick, 0.40, 260.0, 46.0, 0.15, 0.2, 3.0),
    "soft kick": partial(_kick, 0.30, 120.0, 55.0, 0.09, 0.05, 1.0),
    "snare": partial(_snare, 185.0, 0.07, 0.11, 1400.0, 0.55),
    "boom snare": partial(_snare, 200.0, 0.06, 0.085, 1100.0, 0.6),
    "trap snare": partial(_snare, 240.0, 0.05, 0.10, 1800.0, 0.7),
    "break snare": partial(_snare, 225.0, 0.06, 0.075, 1300.0, 0.6),
    "rock snare": partial(_snare, 175.0, 0.09, 0.13, 1200.0, 0.6),
    "lofi snare": partial(_snare, 190.0, 0.06, 0.07, 700.0, 0.4),
    "clap": partial(_clap, 0.06),
    "brush": _brush,
    "hat": partial(_metal, 0.09, 0.018, 6500.0, 21),
    "soft hat": partial(_metal, 0.07, 0.014, 5000.0, 22, 0.8),
    "open hat": partial(_metal, 0.34, 0.09, 6000.0, 23),
    "pedal hat": partial(_metal, 0.07, 0.02, 4500.0, 24, 0.7),
    "ride": _ride,
    "crash": partial(_metal, 1.9, 0.5, 3500.0, 25, 0.9),
    "tom high": partial(_tom, 165.0),
    "tom mid": partial(_tom, 125.0),
    "tom low": partial(_tom, 92.0),
    "rim": _rim,
    "shaker": _shaker,
    "riser": _riser,
}

STAND_INS: Final[dict[str, str]] = {
    "metal kick": "kick",
    "metal snare": "rock snare",
    "gated snare": "rock snare",
    "dub snare": "trap snare",
    "funk snare": "break snare",
    "reggae snare": "break snare",
    "cross stick": "rim",
    "snap": "clap",
    "tambourine": "shaker",
    "cowbell": "rim",
    "conga high": "tom high",
    "conga low": "tom mid",
    "bongo": "tom high",
    "timbale": "tom high",
    "stomp": "soft kick",
    "china": "crash",
    "reverse crash": "riser",
    "impact": "tom low",
    "swell": "riser",
    "timpani": "tom low",
}
"""Sounds that another one stands in for."""
