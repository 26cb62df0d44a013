"""The reverb's impulse response."""

import numpy as np
import pytest

from generation_service.models.base import FloatArray
from generation_service.models.sketch.synthesis.reverb import Reverb

RATE_HZ = 32_000


def test_reverb_does_not_depend_on_block_boundaries() -> None:
    """The response to an impulse is only shifted by its position in a block, and it has the requested length."""

    def impulse_response(at: int) -> FloatArray:
        room = Reverb(1.0, RATE_HZ, 4096)
        signal = np.zeros(4096 * 12, np.float32)
        signal[at] = 1.0
        blocks = [room.process(part) for part in signal.reshape(-1, 4096)]
        assert blocks[-1] is None  # Silence costs nothing.
        return np.concatenate([np.zeros((2, 4096), np.float32) if part is None else part for part in blocks], axis=1)

    first, later = impulse_response(0), impulse_response(5000)
    assert np.max(np.abs(first[:, :-5000] - later[:, 5000:])) < 1e-5
    assert np.sum(first**2, axis=1) == pytest.approx([1.0, 1.0], rel=1e-3)
    tail = np.sqrt(np.mean(first[:, 16_000:20_000] ** 2)) / np.sqrt(np.mean(first[:, 1500:5500] ** 2))
    assert 0.01 < tail < 0.2
    assert np.max(np.abs(first[:, 4096 * 9 :])) < 1e-5
