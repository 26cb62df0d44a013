"""Test signals, and independent meters to compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyebur128
import pytest
import soxr

Samples = npt.NDArray[np.float32]


def tones(rate: int, parts: Iterable[tuple[float, float]], channels: int = 2) -> Samples:
    """Returns [frames, channels]: a 1 kHz sine, in phase on all channels, in consecutive (seconds, peak dBFS) parts."""
    levels = np.concatenate([np.full(round(seconds * rate), 10 ** (dbfs / 20)) for seconds, dbfs in parts])
    wave = levels * np.sin(2 * np.pi * 1000 * np.arange(len(levels)) / rate)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def music(rate: int, seconds: float, channels: int = 2, seed: int = 1) -> Samples:
    """Returns chords of varying loudness with noise bursts at 120 BPM: wide-band, with dynamics and peaks."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    chord = sum(np.sin(2 * np.pi * f * time) for f in (110.0, 220.0, 277.2, 329.6)) * 0.05 * (1.1 + np.sin(time * 0.7))
    hits = random.standard_normal((len(time), channels)) * 0.3 * np.exp(-(time % 0.5) * 25)[:, None]
    return (chord[:, None] + hits).astype(np.float32)


def spiky(rate: int, seconds: float, channels: int = 2, seed: int = 1) -> Samples:
    """Returns music with single loud samples and pairs of them."""
    random = np.random.default_rng(seed)
    samples = music(rate, seconds, channels, seed)
    for start in random.integers(0, len(samples) - 1, round(seconds * 4)):
        samples[start : start + 2] = random.uniform(-1, 1, (2, channels))
    return samples


def noise(rate: int, seconds: float, channels: int = 2, seed: int = 1) -> Samples:
    """Returns white noise."""
    return (np.random.default_rng(seed).standard_normal((round(seconds * rate), channels)) * 0.1).astype(np.float32)


def of_plr(plr: float, rate: int, seconds: float, channels: int = 2, seed: int = 1, every: float = 1.0) -> Samples:
    """Returns chords and a drum hit every `every` seconds, whose peak-to-loudness ratio by libebur128 is `plr` dB."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    chord = sum(np.sin(2 * np.pi * f * time) for f in (110.0, 220.0, 277.2, 329.6)) * 0.05
    since = (time + 0.2) % every
    hits = np.sin(2 * np.pi * (60 + 240 * np.exp(-since * 60)) * since) + random.standard_normal(len(time)) * 0.3
    hits *= np.exp(-since * 60)
    low, high = 1e-3, 30.0
    while high / low > 1.01:
        middle = (low * high) ** 0.5
        samples = (chord + middle * hits)[:, None].astype(np.float32)
        figures = measured_by_libebur128(samples, rate)
        found = figures.true_peak_dbtp - figures.integrated_lufs - 10 * np.log10(channels)
        low, high = (middle, high) if found < plr else (low, middle)
    return np.repeat(samples, channels, axis=1)


def in_chunks(samples: Samples, sizes: Iterable[int]) -> Iterable[Samples]:
    """Yields the samples in chunks of the given sizes, which repeat."""
    start, sizes = 0, list(sizes)
    while start < len(samples):
        for size in sizes:
            yield samples[start : start + size]
            start += size


@dataclass(frozen=True)
class Signals:
    tones: Callable[..., Samples]
    music: Callable[..., Samples]
    spiky: Callable[..., Samples]
    noise: Callable[..., Samples]
    of_plr: Callable[..., Samples]
    in_chunks: Callable[..., Iterable[Samples]]


@pytest.fixture(scope="session")
def signals() -> Signals:
    return Signals(tones, music, spiky, noise, of_plr, in_chunks)


@dataclass(frozen=True)
class ReferenceFigures:
    integrated_lufs: float
    range_lu: float
    true_peak_dbtp: float


def measured_by_libebur128(samples: Samples, rate: int) -> ReferenceFigures:
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


@pytest.fixture(scope="session")
def libebur128() -> Callable[[Samples, int], ReferenceFigures]:
    return measured_by_libebur128


@pytest.fixture(scope="session")
def soxr_true_peak() -> Callable[[Samples, int], float]:
    """Measures the true peak in dBTP with soxr's best filter, oversampled 16 times."""

    def measure(samples: Samples, rate: int) -> float:
        oversampled = soxr.resample(samples.astype(np.float64), rate, 16 * rate, quality="VHQ")
        return float(20 * np.log10(np.abs(oversampled).max()))

    return measure
