"""The soft clipper of the master bus."""

import numpy as np

from generation_service.models.sketch.synthesis.master_bus import CEILING, soft_clip


def test_soft_clip_is_smooth_and_bounded() -> None:
    ramp = np.linspace(-3.0, 3.0, 60_001, dtype=np.float32)[None, :]
    bent = soft_clip(ramp.copy())
    assert np.max(np.abs(bent)) <= CEILING + 1e-6
    slope = np.diff(bent[0]) / np.diff(ramp[0])
    assert np.all(slope >= -1e-3)
    quiet = np.abs(ramp) < 0.5
    assert np.array_equal(bent[quiet], ramp[quiet])
