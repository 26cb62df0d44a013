"""Signals, and a meter that nobody here wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyebur128
import pytest

Samples = npt.NDArray[np.float32]


def tones(rate: int, parts: Iterable[tuple[float, float]], channels: int = 2) -> Samples:
    """A 1 kHz sine, in phase on all channels: (seconds, peak dBFS) one after the other, [frames, channels]."""
    levels = np.concatenate([np.full(round(seconds * rate), 10 ** (dbfs / 20)) for seconds, dbfs in parts])
    wave = levels * np.sin(2 * np.pi * 1000 * np.arange(len(levels)) / rate)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def music(rate: int, seconds: float, channels: int = 2, seed: int = 1) -> Samples:
    """Chords that swell, and bursts of noise at 120 BPM: wide band, with a range and peaks."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    chord = sum(np.sin(2 * np.pi * f * time) for f in (110.0, 220.0, 277.2, 329.6)) * 0.05 * (1.1 + np.sin(time * 0.7))
    hits = random.standard_normal((len(time), channels)) * 0.3 * np.exp(-(time % 0.5) * 25)[:, None]
    return (chord[:, None] + hits).astype(np.float32)


def in_chunks(samples: Samples, sizes: Iterable[int]) -> Iterable[Samples]:
    """The samples cut into pieces of the sizes given, over and over."""
    start, sizes = 0, list(sizes)
    while start < len(samples):
        for size in sizes:
            yield samples[start : start + size]
            start += size


@dataclass(frozen=True)
class Signals:
    tones: Callable[..., Samples]
    music: Callable[..., Samples]
    in_chunks: Callable[..., Iterable[Samples]]


@pytest.fixture(scope="session")
def signals() -> Signals:
    return Signals(tones, music, in_chunks)


@dataclass(frozen=True)
class ReferenceFigures:
    integrated_lufs: float
    range_lu: float
    true_peak_dbtp: float


@pytest.fixture(scope="session")
def libebur128() -> Callable[[Samples, int], ReferenceFigures]:
    def measure(samples: Samples, rate: int) -> ReferenceFigures:
        mode = pyebur128.MeasurementMode
        channels = samples.shape[1]
        state = pyebur128.R128State(channels, rate, mode.MODE_I | mode.MODE_LRA | mode.MODE_TRUE_PEAK)
        state.add_frames(np.ascontiguousarray(samples, dtype=np.float32).ravel(), len(samples))
        peak = max(pyebur128.get_true_peak(state, channel) for channel in range(channels))
        return ReferenceFigures(
            pyebur128.get_loudness_global(state),
            pyebur128.get_loudness_range(state),
            float(20 * np.log10(peak)) if peak else float("-inf"),
        )

    return measure
