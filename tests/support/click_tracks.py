"""Clicks at known times."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

ACCENT_HZ, CLICK_HZ = 90.0, 1500.0
DECAY_SECONDS = 0.02


def click_track(
    times: Sequence[float], seconds: float, rate_hz: int, beats_per_bar: int = 4, first_downbeat: int = 0
) -> npt.NDArray[np.float32]:
    """Returns a low, loud click at the first beat of each bar and a high one at the others: [frames, 1]."""
    samples = np.zeros(round(seconds * rate_hz), dtype=np.float32)
    time = np.arange(round(8 * DECAY_SECONDS * rate_hz)) / rate_hz
    decay = np.exp(-time / DECAY_SECONDS)
    accent, click = (
        0.8 * np.sin(2 * np.pi * ACCENT_HZ * time) * decay,
        0.3 * np.sin(2 * np.pi * CLICK_HZ * time) * decay,
    )
    for number, at in enumerate(times):
        sound = accent if number % beats_per_bar == first_downbeat else click
        start = round(at * rate_hz)
        room = len(samples[start : start + len(sound)])
        samples[start : start + room] += sound[:room].astype(np.float32)
    return samples[:, None]


def drifting_beats(tempo: Callable[[float], float], start: float, end: float) -> list[float]:
    """Returns the times of beats at a tempo in beats per minute that depends on the time in seconds."""
    times = [start]
    while (following := times[-1] + 60.0 / tempo(times[-1])) < end:
        times.append(following)
    return times
