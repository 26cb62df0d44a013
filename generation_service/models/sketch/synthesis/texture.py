"""Background noise that is part of the sound of a genre: seamless stereo loops, float32 [2, 131072]."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from generation_service.models.base import FloatArray
from generation_service.models.sketch.synthesis.tone_synthesis import RATE_HZ

LOOP_FRAMES: Final = 1 << 17
TEXTURES: Final = frozenset({"vinyl", "air"})

_JOINT_FRAMES: Final = RATE_HZ // 4
_CRACKLES_PER_SECOND: Final = 9.0


@lru_cache(maxsize=4)
def render_texture(name: str) -> FloatArray:
    """A loop whose noise has an RMS of 1. It is filtered by an FFT over the whole loop, so it has no seam."""
    random = np.random.default_rng(len(name))
    noise: FloatArray = random.standard_normal((2, LOOP_FRAMES), dtype=np.float32)
    hz: FloatArray = np.fft.rfftfreq(LOOP_FRAMES, 1.0 / RATE_HZ).astype(np.float32) + np.float32(1.0)
    if name == "vinyl":
        bed = _filtered(noise, 1.0 / np.sqrt((1.0 + (300.0 / hz) ** 4) * (1.0 + (hz / 5000.0) ** 4)))
        specks = np.zeros((2, LOOP_FRAMES), np.float32)
        count = int(_CRACKLES_PER_SECOND * LOOP_FRAMES / RATE_HZ)
        places = random.integers(0, LOOP_FRAMES, count)
        sizes = random.exponential(1.0, count).astype(np.float32) * random.choice((-1.0, 1.0), count)
        side = random.random(count)
        specks[0, places], specks[1, places] = sizes * (1.0 - side), sizes * side
        crackle = _filtered(specks, 1.0 / np.sqrt((1.0 + (1200.0 / hz) ** 4) * (1.0 + (hz / 6000.0) ** 6)))
        # Peaks of 12 times the noise are audible as crackles, but do not threaten the headroom.
        return bed + crackle * np.float32(12.0 / np.max(np.abs(crackle)))
    # Air: wind that swells once per loop on each side, so that the swell has no seam either.
    bed = _filtered(noise, 1.0 / np.sqrt((1.0 + (180.0 / hz) ** 4) * (1.0 + (hz / 900.0) ** 3)))
    turn = np.arange(LOOP_FRAMES, dtype=np.float32) * np.float32(2.0 * np.pi / LOOP_FRAMES)
    swell = np.stack([0.7 + 0.3 * np.sin(turn), 0.7 + 0.3 * np.cos(turn)])
    air: FloatArray = (bed * swell).astype(np.float32)
    return air


def render_endless_texture(name: str, frames: int) -> FloatArray:
    """A texture of any length whose end leads into its start: float32 [2, frames]."""
    loop = render_texture(name)
    joint = min(_JOINT_FRAMES, frames // 2)
    tiled = np.tile(loop, (1, -(-(frames + joint) // LOOP_FRAMES)))
    out = tiled[:, :frames].copy()
    # What follows the end is what the start passes out of. Noise keeps its level by an equal-power crossfade.
    angle = np.arange(joint, dtype=np.float32) * np.float32(np.pi / 2 / max(1, joint))
    out[:, :joint] = np.sin(angle) * out[:, :joint] + np.cos(angle) * tiled[:, frames : frames + joint]
    return out


def _filtered(signal: FloatArray, shape: npt.NDArray[np.floating]) -> FloatArray:
    out = np.fft.irfft(np.fft.rfft(signal, axis=1) * shape, LOOP_FRAMES, axis=1)
    unit: FloatArray = (out / np.sqrt(np.mean(out**2))).astype(np.float32)
    return unit
