"""What hits are made of: noise, falling sines, and modes that ring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from generation_service.models.base import FloatArray
from generation_service.models.sketch.synthesis.tone_synthesis import RATE_HZ

ONSET_FRAMES: Final = 16
"""0.5 ms, which is still a hard attack but avoids a step from silence."""


@dataclass(frozen=True, slots=True)
class Strike:
    """How a drum is hit."""

    hardness: float
    """0 … 1"""
    variant: int
    """No two hits of a player are the same: each variant has other noise."""


def seconds_of(length: float) -> FloatArray:
    """The time of each frame, [frames]."""
    out: FloatArray = np.arange(int(length * RATE_HZ), dtype=np.float32) / np.float32(RATE_HZ)
    return out


def decay(length: float, time_constant: float, hold: float = 0.0) -> FloatArray:
    """1 for `hold` seconds, then an exponential decay: [frames]."""
    out: FloatArray = np.exp(-np.maximum(0.0, seconds_of(length) - np.float32(hold)) / np.float32(time_constant))
    return out


def rise(length: float, attack: float) -> FloatArray:
    """A ramp to 1 within `attack` seconds: [frames]."""
    out: FloatArray = np.minimum(np.float32(1.0), seconds_of(length) / np.float32(attack))
    return out


def noise(
    strike: Strike, length: float, low_hz: float, high_hz: float, *, seed: int, channels: int = 1, order: int = 4
) -> FloatArray:
    """Noise between two corner frequencies, filtered by FFT: [channels, frames], RMS 1."""
    frames = int(length * RATE_HZ)
    random = np.random.default_rng(seed + 100 * strike.variant)
    white = random.standard_normal((channels, frames), dtype=np.float32)
    if channels == 2:  # Half of it is common to both channels, so that it is still there in mono.
        white[1] = 0.5 * white[0] + 0.87 * white[1]
    # A power of two, because a prime length would make the FFT many times slower.
    size = 1 << (frames - 1).bit_length()
    hz = np.fft.rfftfreq(size, 1.0 / RATE_HZ).astype(np.float32) + np.float32(1.0)
    shape = 1.0 / np.sqrt((1.0 + (low_hz / hz) ** order) * (1.0 + (hz / high_hz) ** order))
    shaped = np.fft.irfft(np.fft.rfft(white, size, axis=1) * shape, size, axis=1)[:, :frames]
    out: FloatArray = (shaped / np.sqrt(np.mean(shaped**2))).astype(np.float32)
    return out


def sweep(length: float, start_hz: float, end_hz: float, time_constant: float) -> FloatArray:
    """A sine whose frequency falls exponentially from one value to another: [frames]."""
    seconds = seconds_of(length).astype(np.float64)
    turns = end_hz * seconds
    turns += (start_hz - end_hz) * time_constant * (1.0 - np.exp(-seconds / time_constant))
    out: FloatArray = np.sin(2.0 * np.pi * (turns - np.floor(turns))).astype(np.float32)
    return out


def modes(length: float, parts: Sequence[tuple[float, float, float]]) -> FloatArray:
    """The modes of a body, each with its frequency in Hz, its level and its decay in seconds: [frames]."""
    seconds = seconds_of(length)
    out = np.zeros(len(seconds), np.float32)
    for hz, level, time_constant in parts:
        ringing = np.sin(np.float32(2.0 * np.pi * hz) * seconds) * np.exp(-seconds / np.float32(time_constant))
        out += np.float32(level) * ringing
    return out


def add(sound: FloatArray, other: FloatArray, level: float, delay: float = 0.0) -> FloatArray:
    """Adds a sound, which may be shorter, `delay` seconds later. In place; returns the first one."""
    start = int(delay * RATE_HZ)
    count = min(sound.shape[-1] - start, other.shape[-1])
    sound[..., start : start + count] += np.float32(level) * other[..., :count]
    return sound


def widened(sound: FloatArray, room: FloatArray) -> FloatArray:
    """A mono sound with a stereo one around it: [2, frames]."""
    out: FloatArray = np.stack([sound, sound])
    return add(out, room, 1.0)
