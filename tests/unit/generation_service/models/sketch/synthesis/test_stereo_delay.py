"""The ping-pong delay."""

import numpy as np
import pytest

from generation_service.models.base import FloatArray
from generation_service.models.sketch.synthesis.stereo_delay import StereoDelay


def impulse_response(delay_frames: int, block: int, blocks: int) -> FloatArray:
    delay = StereoDelay(delay_frames, block)
    send = np.zeros((blocks, block), np.float32)
    send[0, 10] = 1.0
    parts = [delay.process(part) for part in send]
    return np.concatenate([np.zeros((2, block), np.float32) if part is None else part for part in parts], axis=1)


@pytest.mark.parametrize("delay_frames", [900, 4096, 10_000])
def test_repeats_alternate_between_the_sides_in_time(delay_frames: int) -> None:
    left, right = impulse_response(delay_frames, 4096, 16)
    for number in range(1, 6):
        side, other = (left, right) if number % 2 else (right, left)
        around = slice(10 + number * delay_frames - 20, 10 + number * delay_frames + 21)
        assert np.argmax(side[around]) == 20
        assert np.max(np.abs(other[around])) < 1e-6
    peaks = [left[10 + number * delay_frames] for number in (1, 3, 5)]
    assert peaks[0] > 2 * peaks[1] > 4 * peaks[2] > 0


def test_repeats_do_not_depend_on_the_block_size() -> None:
    assert np.array_equal(impulse_response(3000, 1024, 32), impulse_response(3000, 8192, 4))


def test_silence_costs_nothing_once_the_repeats_have_died_away() -> None:
    delay = StereoDelay(1000, 4096)
    silence = np.zeros(4096, np.float32)
    assert delay.process(silence + 1) is not None
    assert [delay.process(silence) is None for _ in range(40)].count(True) > 10
