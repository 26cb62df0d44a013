"""A finished file's outline, for drawing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export_service.decoding import in_sequence
from export_service.library import file_errors

FULL_SCALE = 128
"""8 bits: -128 to 127."""
FRAMES_AT_ONCE = 65_536


@dataclass(frozen=True)
class Waveform:
    """audiowaveform's data: smallest and largest value of each point, in turn."""

    sample_rate_hz: int
    samples_per_pixel: int
    data: list[int]


def waveform(path: Path, points: int) -> Waveform:
    """At most `points` points over the whole of the file, all channels averaged into one, as audiowaveform does.

    Raises NotFound where the file is gone. Blocks: call it on a thread.
    """
    with file_errors(path), in_sequence(path) as file:
        frames_a_point = max(1, -(-file.frames // points))
        points_at_once = max(1, FRAMES_AT_ONCE // frames_a_point)
        data: list[int] = []
        while (samples := file.read(points_at_once * frames_a_point, dtype="float32", always_2d=True)).size:
            mono = samples.mean(axis=1)
            starts = np.arange(0, len(mono), frames_a_point)
            ends = np.stack([np.minimum.reduceat(mono, starts), np.maximum.reduceat(mono, starts)], axis=1)
            data += np.clip(np.rint(ends * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(int).ravel().tolist()
        return Waveform(file.samplerate, frames_a_point, data)
