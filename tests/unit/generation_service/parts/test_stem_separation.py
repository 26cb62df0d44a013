"""Separating stems window by window."""

from __future__ import annotations

import numpy as np
import pytest

from generation_service.models.base import FloatArray
from generation_service.parts.stem_separation import StemSeparation

RATE_HZ = 1000


class Echo:
    """Returns what it gets as its only stem."""

    names = ("all",)
    sample_rate_hz = RATE_HZ

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def separate(self, samples: FloatArray) -> FloatArray:
        self.lengths.append(len(samples))
        return samples[None].copy()


@pytest.mark.parametrize("seconds", [0.1, 3.0, 24.9, 25.5, 26.6, 100.0])
def test_every_frame_comes_once(seconds: float) -> None:
    audio = np.random.default_rng(1).standard_normal((round(seconds * RATE_HZ), 2)).astype(np.float32)
    separator = Echo()
    separation = StemSeparation(separator)
    blocks = [separation.feed(part) for part in np.array_split(audio, max(1, round(seconds / 0.7)))]
    stems = np.concatenate([block for block in blocks if block is not None] + [separation.finish()], axis=1)
    assert stems.shape == (1, *audio.shape)
    assert np.allclose(stems[0], audio, atol=1e-6)
    assert max(separator.lengths) < 28 * RATE_HZ


def test_windows_pass_into_each_other_without_a_step() -> None:
    class Drifting(Echo):
        """The level that it finds differs from window to window."""

        def separate(self, samples: FloatArray) -> FloatArray:
            return super().separate(samples) * np.float32(1.0 if len(self.lengths) % 2 else 0.5)

    separation = StemSeparation(Drifting())
    blocks = [separation.feed(np.ones((RATE_HZ, 2), np.float32)) for _ in range(70)]
    level = np.concatenate([block for block in blocks if block is not None] + [separation.finish()], axis=1)[0, :, 0]
    assert set(np.unique(level)) >= {0.5, 1.0}
    assert np.max(np.abs(np.diff(level))) < 0.002
