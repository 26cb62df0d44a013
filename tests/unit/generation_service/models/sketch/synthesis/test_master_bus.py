"""The soft clipper of the master bus."""

import numpy as np

from generation_service.models.sketch.synthesis.master_bus import CEILING, clip_gain


def test_soft_clip_is_smooth_and_bounded() -> None:
    ramp = np.linspace(-3.0, 3.0, 60_001, dtype=np.float32)[None, :]
    gain = clip_gain(ramp)
    assert gain is not None
    bent = ramp * gain
    assert np.max(np.abs(bent)) <= CEILING + 1e-6
    slope = np.diff(bent[0]) / np.diff(ramp[0])
    assert np.all(slope >= -2e-3)
    quiet = np.abs(ramp) < 0.5
    assert np.array_equal(bent[quiet], ramp[quiet])
