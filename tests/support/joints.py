"""Measures whether a joint can be heard."""

from __future__ import annotations

import numpy as np

from generation_service.models.base import FloatArray


def click(samples: FloatArray, at: int, rate: int) -> float:
    """How much sharper the waveform bends within 1 ms of a frame than in the 100 ms around it: the largest second
    difference relative to the largest elsewhere. A click is many times sharper. samples: [n, channels]."""
    bend = np.abs(np.diff(samples.astype(np.float64), n=2, axis=0)).max(axis=1)
    near, around = round(0.001 * rate), round(0.1 * rate)
    outside = np.concatenate([bend[max(0, at - around) : at - near], bend[at + near : at + around]])
    return float(bend[max(0, at - near) : at + near].max() / max(outside.max(), 1e-9))


def level_jump_db(samples: FloatArray, at: int, rate: int, seconds: float = 0.05) -> float:
    """By how much the RMS level changes at a frame, in dB."""
    span = round(seconds * rate)
    before, after = (rms_db(part) for part in (samples[at - span : at], samples[at : at + span]))
    return abs(after - before)


def spectral_jump_db(samples: FloatArray, at: int, rate: int, seconds: float = 0.05) -> float:
    """The mean difference of the levels of third-octave bands before and after a frame, in dB."""
    span = round(seconds * rate)
    before, after = (_bands_db(part, rate) for part in (samples[at - span : at], samples[at : at + span]))
    return float(np.mean(np.abs(after - before)))


def rms_db(samples: FloatArray) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(np.square(samples, dtype=np.float64))) + 1e-6))


def _bands_db(samples: FloatArray, rate: int) -> np.ndarray:
    mean = samples.mean(axis=1) * np.hanning(len(samples))
    power = np.abs(np.fft.rfft(mean)) ** 2 / len(mean)
    frequencies = np.fft.rfftfreq(len(mean), 1 / rate)
    edges = 100 * 2 ** (np.arange(0, int(3 * np.log2(rate / 2 / 100)) + 1) / 3)
    return np.array(
        [10 * np.log10(power[(frequencies >= low) & (frequencies < 2 ** (1 / 3) * low)].sum() + 1e-9) for low in edges]
    )


def music(seconds: float, rate: int, bpm: float = 120.0, *, seed: int = 0, channels: int = 2) -> FloatArray:
    """Chords and a drum on each beat: float32 [n, channels]."""
    random = np.random.default_rng(seed)
    n = np.arange(round(seconds * rate))
    t = n / rate
    chord = sum(
        np.sin(2 * np.pi * pitch * t + phase)
        for pitch, phase in zip((196, 247, 294), random.random(3) * 6, strict=True)
    )
    beat = t % (60 / bpm)
    drum = np.sin(2 * np.pi * 70 * beat) * np.exp(-beat * 25)
    hiss = random.normal(0, 1, len(n)) * np.exp(-beat * 60)
    wave = 0.1 * chord + 0.35 * drum + 0.1 * hiss
    return np.stack([wave * (1 - 0.1 * channel) for channel in range(channels)], axis=1).astype(np.float32)
